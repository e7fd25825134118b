"""Every test that docs/faults.md names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TABLE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.endswith("| | |")]
FAULTS = ROWS[1:]


def test_every_fault_has_a_consequence_and_a_test() -> None:
    assert len(FAULTS) > 10
    for row in FAULTS:
        fault, consequence, test = (cell.strip() for cell in row.strip("|").split(" | "))
        assert fault and consequence
        assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+`(, )?)+", test), test


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", TABLE))))
def test_every_test_that_the_table_names_exists(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
