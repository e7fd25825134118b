"""How a worker joins a study that has begun, from any machine: it must do what all others do.

What a trial's result depends on besides its parameters is the configuration, the code and the
corpus. A worker that has others of these says which, and does not start.
"""

from __future__ import annotations

import importlib.metadata
import logging

import optuna
from pydantic import ValidationError

from study.config import StudyConfig
from study.config_file import amend
from study.connection import connect
from study.errors import InputError
from study.passwords import holds_password
from study.provenance import code_fingerprint
from study.storage import changes

log = logging.getLogger(__name__)


def configuration(url: str, name: str, overrides: list[str]) -> StudyConfig:
    """The configuration of a study, from its storage.

    `overrides` are for what may differ between machines: runs, corpus.folder, device, tracking.
    Raises `InputError` where there is no such study.
    """
    if holds_password(url):
        raise InputError(
            "--storage: holds a password, which all could read: write '${STUDY_DB_PASSWORD}' in "
            "its place, in single quotes, and set that variable in the environment"
        )
    storage = connect(url)
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = sorted(optuna.get_all_study_names(storage))
        held = f"it holds {', '.join(names)}" if names else "it holds none"
        raise InputError(f"--study: the storage has no study '{name}'; {held}") from None
    if "config" not in study.user_attrs:
        raise InputError(f"--study: '{name}' was not begun by this program")
    try:
        begun = StudyConfig.model_validate(study.user_attrs["config"])
    except ValidationError:
        raise InputError(
            f"--study: the settings of '{name}' are those of another version of this program; it "
            f"was begun with the commit {study.user_attrs.get('git_commit')}"
        ) from None
    return amend(begun, [*overrides, f"storage={url}"])


def verify(config: StudyConfig, study: optuna.Study, fingerprint: str) -> None:
    """Raise `InputError` where this worker's trials could not be compared with the study's.

    `fingerprint` is that of the corpus as this machine has it.
    """
    begun = study.user_attrs
    faults = list(changes(begun, config))
    if begun.get("code", code_fingerprint()) != code_fingerprint():
        commit = begun.get("git_commit")
        faults.append(
            f"the code is another (its fingerprint is {code_fingerprint()} here and "
            f"{begun['code']} in the study" + (f", whose commit is {commit})" if commit else ")")
        )
    before = begun.get("corpus", {}).get("fingerprint", fingerprint)
    if before != fingerprint:
        faults.append(
            f"the corpus has other audio or transcripts (its fingerprint is {fingerprint} here and "
            f"{before} in the study)"
        )
    if faults:
        raise InputError(
            f"this worker would not do what the study '{config.name}' does: {'; '.join(faults)}"
        )
    for package, version in begun.get("versions", {}).items():
        if package in ("torch", "torchaudio") and importlib.metadata.version(package) != version:
            log.warning(
                "%s is %s here and %s in the study: results may differ in their last digits",
                package,
                importlib.metadata.version(package),
                version,
            )
