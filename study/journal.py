"""Optuna's storage in a journal: a file to which machines that share a folder append records."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from study.errors import InputError

log = logging.getLogger(__name__)

LOCKED = 15
"""Seconds after which a lock on a journal counts as left behind by a worker that was killed."""


def open_journal(url: str) -> BaseStorage:
    """The journal of a URL `journal://file`; `InputError` where it is damaged in its middle."""
    file = Path(url.removeprefix("journal://"))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _Journal(file)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"storage: {file} is damaged: a record in its middle cannot be read ({error}); put a "
            "copy of it in its place, or begin the study anew"
        ) from None


class _JournalFile(JournalFileBackend):
    """A journal file that bears a record which was cut off: whoever wrote it was killed."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, each whole; what follows the last whole one is taken away first."""
        self._lock.acquire()
        try:
            with Path(self._file_path).open(
                "r+b"
            ) as file:  # never a new file in an old one's place
                end = file.seek(0, os.SEEK_END)
                whole = _end_of_last_line(file, end)
                if whole < end:
                    log.warning("The journal ended in a record that was cut off; it is left out.")
                    file.truncate(whole)
                file.seek(whole)
                file.write(
                    b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in logs)
                )
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def _end_of_last_line(file: Any, end: int) -> int:
    """The offset after the last newline of a file that is `end` bytes long."""
    block = 4096
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return int(start + place + 1)
        end = start
    return 0


class _Journal(JournalStorage):
    """Optuna's journal, in which of several processes that claim a trial one alone gets it."""

    def __init__(self, file: Path) -> None:
        lock = JournalFileOpenLock(str(file), grace_period=LOCKED)
        self._claims = JournalFileOpenLock(f"{file}.claims", grace_period=LOCKED)
        super().__init__(_JournalFile(str(file), lock))

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; of several processes that claim it, one gets True.

        Optuna answers from the trial that this process owned last, which may be one that it handed
        back. Under a lock the state that it reads first is still that which it changes.
        """
        self._claims.acquire()
        try:
            return super().set_trial_state_values(trial_id, state, values)
        finally:
            self._claims.release()

    def release(
        self,
        trial_id: int,
        is_held: Callable[[Any], bool],
        state: TrialState,
        attributes: Mapping[str, Any],
    ) -> bool:
        """Change a running trial's state and attributes if its lease is the one that is meant."""
        self._claims.acquire()
        try:
            trial = self.get_trial(trial_id)
            if trial.state != TrialState.RUNNING or not is_held(trial.user_attrs.get("lease")):
                return False
            for name, value in attributes.items():
                self.set_trial_user_attr(trial_id, name, value)
            return super().set_trial_state_values(trial_id, state)
        finally:
            self._claims.release()
