"""Waiting for a storage that went away: an operation that finds it gone is tried again.

storage = patient(storage)      # every operation waits for up to `PATIENCE` seconds
with without_waiting():
...                         # within it, this thread does not
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage

from study.errors import Unavailable
from study.stopping import asked

log = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds that a storage may be away before a worker gives up."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most: a worker that is asked to stop is not kept longer."""

_OPERATIONS = (
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "record",
    "release",
    "get_trial",
    "get_all_trials",
)
"""What may be done again when it is not known whether it was done."""
_ONCE = ("create_new_study", "create_new_trial")
"""What may not: a second try could make a second one."""

_thread = threading.local()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Within the block, this thread does not wait for a storage that is away."""
    _thread.impatient = getattr(_thread, "impatient", 0) + 1
    try:
        yield
    finally:
        _thread.impatient -= 1


def patient(storage: BaseStorage) -> BaseStorage:
    """The same storage, whose operations wait for it when it does not answer."""
    for name in (*_OPERATIONS, *_ONCE):
        if hasattr(storage, name):
            setattr(storage, name, _patiently(name, getattr(storage, name)))
    return storage


def _patiently(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    def attempt(*arguments: Any, **named: Any) -> Any:
        began, pause, again = time.monotonic(), 0.2, False
        while True:
            try:
                result = operation(*arguments, **named)
                if again:
                    log.info("The storage answers again.")
                return result
            except UpdateFinishedTrialError:
                if again and name == "set_trial_state_values":
                    return True  # the first try did it, and its answer was lost
                raise
            except Exception as error:
                if not is_away(error):
                    raise
                waited = time.monotonic() - began
                no_time = getattr(_thread, "impatient", 0) or asked.is_set() or name in _ONCE
                if no_time or waited > PATIENCE:
                    raise Unavailable(
                        f"The storage of the study does not answer ({reason_of(error)})."
                    ) from None
                if not again:
                    log.warning(
                        "The storage does not answer (%s); waiting for up to %.0f minutes.",
                        reason_of(error),
                        PATIENCE / 60,
                    )
            again = True
            asked.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return attempt


def is_away(error: BaseException) -> bool:
    """Whether an operation failed because the storage cannot be reached, and may work later."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return is_away(error.__cause__)
    import sqlalchemy.exc  # takes a while, and most storages never fail

    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or isinstance(
            error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
        )
    # A transaction is invalid after the connection broke in the middle of it.
    invalid = sqlalchemy.exc.PendingRollbackError | sqlalchemy.exc.ResourceClosedError
    if isinstance(error, invalid | sqlalchemy.exc.TimeoutError | OSError):
        return True
    code = getattr(error, "code", None)  # grpc's, which need not be installed
    if type(error).__module__.startswith("grpc") and callable(code):
        behind = ("OperationalError", "StorageInternalError", "InterfaceError")
        return code().name == "UNAVAILABLE" or any(name in str(error) for name in behind)
    return False


def reason_of(error: BaseException) -> str:
    """What a storage's failure says of itself, in one line without its address."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return reason_of(error.__cause__)
    import sqlalchemy.exc

    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        error = error.orig
    details = getattr(error, "details", None)
    text = str(details()) if callable(details) else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__
