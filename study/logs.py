"""What workers do, written into a file for each; `run` reads there why they stopped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from study.errors import InputError, Unavailable

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""A line of a log."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def logged(file: Path) -> Iterator[None]:
    """Log what the block does into a file, and the error in which it may end.

    Warnings are printed as well, as they are in a process that logs nowhere.
    """
    logger = logging.getLogger("study")
    level = logger.level
    handlers: list[logging.Handler] = [logging.FileHandler(file, encoding="utf-8")]
    handlers[0].setFormatter(logging.Formatter(FORMAT))
    if logging.lastResort is not None and not logger.hasHandlers():
        handlers.append(logging.lastResort)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except InputError as error:
        for fault in error.faults:
            log.error("%s", fault)
    except Unavailable as error:
        log.error("%s", error)
    except Exception:
        log.exception("The worker ended in an error of the program")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        handlers[0].close()
        logger.setLevel(level)
