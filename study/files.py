"""Files that are whole or not there.

What a study writes is written beside its final place and then renamed, so that an interruption or a
full disk leaves the previous version, never half of a new one.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from study.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class Unwritable(InputError):
    """A file that cannot be written: the disk is full, or may not be written to."""

    def __init__(self, file: Path | str, error: OSError) -> None:
        super().__init__(
            f"{file} cannot be written ({error.strerror}): make room, allow it, or set `runs` to "
            "another folder"
        )


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}: write the whole path") from None


Folder = Annotated[Path, AfterValidator(_at_home)]
"""A folder of a study.yaml, in which `~` means the home folder, as it does in a shell."""


@contextmanager
def replacing(file: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path that takes the place of `file` when the block ends without an error.

    `keep` is where the file that it replaces goes. Raises `Unwritable`; then `file` is as it was.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise Unwritable(file, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        _flush(temporary)
        if keep is not None and file.exists():
            file.replace(keep)
        temporary.replace(file)
    except (OSError, RuntimeError) as error:
        full = error if isinstance(error, OSError) else error.__context__  # torch wraps it
        if isinstance(full, OSError) and full.errno in _NO_ROOM:
            raise Unwritable(file, full) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove what a process that was killed had begun to write into a folder."""
    for file in folder.glob(".*"):
        if not file.is_dir():  # such as Jupyter's, who looked at a file
            with suppress(OSError):  # NFS keeps what somebody has open
                file.unlink()


def _flush(file: Path) -> None:
    """Bring a file to the disk, so that not even a power cut leaves its name on half of it."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def write_atomically(file: Path, content: bytes | str) -> None:
    """Write a whole file at once."""
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
