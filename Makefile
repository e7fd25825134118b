# make run    set up, then run the default study
# make test   set up, then run the tests
# make check  set up, then check format, lint, types and the layering of the packages
# make audit  ask PyPI what vulnerabilities are known of the pinned packages
# make clean  delete .venv, and runs: every study that was run here, with its report

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check audit lock clean

run: .venv/ready
	$(BIN)/python -m study run

# File by file in their order: by the number of tests, as xdist would have it, the longest begins last.
test: .venv/ready
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In an environment of its own. A package that PyPI does not answer for is an error, not passed over.
audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock

# Made once, and again when what it is made from changes. Packages are compiled on all cores, which
# pip would do on one.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # some hold templates, which are no Python
	@touch $@

# Pins everything, for any platform and Python; needs uv.
lock:
	uv pip compile --universal --python-version 3.11 --extra dev --no-annotate \
		--no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv runs
