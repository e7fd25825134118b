"""Files of weights: written whole, checked when they are read, and never executed.

    weights.write(Path("best.pt"), network.state_dict())
    network.load_state_dict(weights.read(Path("best.pt"), device))

They are torch's own files, so `torch.load` reads them, too. But it does not compare the checksums
in them; here they are compared, so that a disk that lost a bit is noticed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from study.files import replacing
from study.stopping import saving


class Damaged(Exception):
    """A file of weights that is not as it was written."""


def write(file: Path, state: dict[str, Any], *, keep: Path | None = None) -> None:
    """Write tensors and plain values; what was there goes to `keep`, once the new file is whole.

    Raises `Unwritable`, and leaves what was there, where there is no room.
    """
    with saving(), replacing(file, keep=keep) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)


def read(file: Path, device: torch.device) -> dict[str, Any]:
    """What a file holds, or `Damaged`.

    Only tensors and plain values are read, so a file from elsewhere cannot run code.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise Damaged(f"{file} is damaged (the checksum of {damaged} differs)")
        state = torch.load(file, map_location=device, weights_only=True)
    except (Damaged, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # bytes that mean nothing can raise anything
        first = str(error).partition("\n")[0]
        raise Damaged(f"{file} is damaged, or holds no weights ({first})") from None
    if not isinstance(state, dict):
        raise Damaged(f"{file} holds no weights but a {type(state).__name__}")
    return state
