"""Imports of heavy libraries, sooner."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def for_good() -> Iterator[None]:
    """Import without looking for garbage, and never look for it among what was imported.

    torch alone makes a few hundred thousand objects that stay until the end. The collector would go
    through them again and again on the way, and once more at the end of the process.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
