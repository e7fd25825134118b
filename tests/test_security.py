"""Secure by habit: what is read from elsewhere is never executed, and secrets are never shown.

Further tests of this lie beside what they test: weights that hold code (tests/study/test_files.py),
YAML that does (tests/faults/test_malformed_settings.py), paths that leave a corpus
(tests/study/data/test_malformed_corpora.py), passwords in addresses (tests/study/test_connection.py).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reports.redaction import redact
from study.commands import answers, machines, watching
from study.data.config import FeatureConfig
from study.data.features import _load
from study.tracking.ui import server
from tests.study.test_files import Bomb

ROOT = Path(__file__).parent.parent
SOURCES = [
    file for folder in ("model", "study", "reports") for file in (ROOT / folder).rglob("*.py")
]


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in our sources: its place, the name of what is called, and the call."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                place = f"{file.relative_to(ROOT)}:{node.lineno}"
                yield place, ast.unparse(node.func), node


def _option(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_the_sources_are_found() -> None:
    called = {name for _, name, _ in _calls()}
    assert {"torch.load", "np.load", "subprocess.Popen", "yaml.load"} <= called


def test_no_command_goes_through_a_shell() -> None:
    for place, name, call in _calls():
        assert name not in ("os.system", "os.popen", "subprocess.getoutput", "eval", "exec"), place
        assert _option(call, "shell") is None, place


def test_nothing_is_unpickled() -> None:
    for place, name, call in _calls():
        assert not name.startswith(("pickle.", "joblib.", "cloudpickle.", "marshal.", "shelve.")), (
            place
        )
        if name == "torch.load":
            assert _option(call, "weights_only") == "True", place
        if name == "np.load":
            assert _option(call, "allow_pickle") == "False", place


def test_yaml_is_read_safely() -> None:
    for place, name, call in _calls():
        assert name not in ("yaml.unsafe_load", "yaml.full_load"), place
        if name == "yaml.load":
            assert _option(call, "Loader") == "_Loader", place  # a SafeLoader
    from yaml import SafeLoader

    from study.config_file import _Loader

    assert issubclass(_Loader, SafeLoader)


def test_cached_features_cannot_run_code(tmp_path: Path) -> None:
    made = tmp_path / "made"
    np.savez(
        tmp_path / "index.npz",
        lengths=np.array([Bomb(made)], dtype=object),
        sums=np.zeros(1),
        faults=np.array("{}"),
    )
    with pytest.raises(ValueError, match="allow_pickle=False"):
        _load(tmp_path, FeatureConfig().mels)
    assert not made.exists()


@pytest.mark.parametrize(
    "command", [answers.ui, watching.dashboard, machines.serve, server], ids=lambda c: c.__name__
)
def test_servers_listen_on_this_machine_alone_unless_told(command: object) -> None:
    assert callable(command)
    assert inspect.signature(command).parameters["host"].default == "127.0.0.1"


SECRETS = [
    "postgresql://me:hunter2@host/db",
    "postgresql+psycopg://me:hun@ter2@host:5432/db",
    "https://hunter2@mlflow.example",
    "http://host:5000/?token=hunter2",
    "mysql://host/db?user=me&password=hunter2",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_addresses_are_shown_without_their_secrets(secret: str) -> None:
    assert "ter2" not in redact(secret)
