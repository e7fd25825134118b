"""Reaching the storage: addresses, passwords, and a storage that is away, locked or cut off."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from study import connection, databases, journal, patience, provenance
from study.config_file import dump, load
from study.connection import connect, open_storage, record
from study.errors import InputError, Unavailable
from study.leases import claim
from study.passwords import expand
from study.patience import without_waiting
from study.storage import create_study, open_study
from tests import postgres
from tests.study.storages import ATTRIBUTES, KINDS, TINY, storage_of, tiny

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("nosuch://", "'nosuch' is not a kind of storage"),
        ("mysql://user@host/name", "'mysql' is not a kind of storage"),
        ("postgresql+psycopg://", "cannot be opened"),
        ("postgresql+nosuch://host/name", "cannot be read as the URL of a storage"),
        ("grpc://host", "cannot be read as the URL of a storage"),
        ("grpc://127.0.0.1:1", "cannot be opened"),
        ("journal:///proc/nosuch/file", "cannot be opened"),
        ("sqlite:////proc/nosuch/file", "cannot be opened"),
        ("postgresql+psycopg://u:${NO_SUCH}@h/n", "the environment has no variable NO_SUCH"),
        ("postgresql+psycopg://u@127.0.0.1:1/n", "Connection refused"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(
    tmp_path: Path, storage: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PROXY_ANSWERS", 1.0)
    with pytest.raises(InputError, match=r"^storage: ") as error:
        open_storage(tiny(tmp_path, f"storage={storage}"))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_together_is_there_for_others_and_refused_once_a_trial_has_ended(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with storage_of(kind, tmp_path, request) as storage:
        config = tiny(tmp_path, f"storage={storage}")
        study = create_study(config, ATTRIBUTES)
        trial = claim(study)
        assert trial is not None
        facts = {"text": "it's", "nothing": None, "evaluations": [{"wer": 0.5}]}
        record(study._storage, trial._trial_id, facts, {1: 0.9, 2: 0.5})
        record(study._storage, trial._trial_id, {"text": "other"}, {2: 0.4})
        record(study._storage, trial._trial_id, {}, {})
        seen = open_study(config).trials[0]
        assert seen.user_attrs.items() >= {**facts, "text": "other"}.items()
        assert seen.intermediate_values == {1: 0.9, 2: 0.4}
        study.tell(trial, 0.4)
        for more in ({"text": "late"}, {}):
            with pytest.raises(UpdateFinishedTrialError):
                record(study._storage, trial._trial_id, more, {3: 0.1})
        seen = open_study(config).trials[0]
        assert (seen.user_attrs["text"], len(seen.intermediate_values)) == ("other", 2)


@pytest.mark.parametrize("where", ["file", "override"])
@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@host/name", "postgresql://me@host/name?password=hunter2"]
)
def test_a_password_in_a_study_is_refused_and_not_repeated(
    tmp_path: Path, url: str, where: str
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(TINY.read_text() + (f"\nstorage: {url}\n" if where == "file" else ""))
    with pytest.raises(InputError, match="holds a password") as error:
        load(file, [] if where == "file" else [f"storage={url}"])
    assert "hunter2" not in str(error.value)
    assert "${STUDY_DB_PASSWORD}" in str(error.value)


def test_variables_are_expanded_for_connecting_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STUDY_DB_PASSWORD", "p@ss/word")
    monkeypatch.setenv("STUDY_DB_HOST", "db.example")
    url = "postgresql+psycopg://me:${STUDY_DB_PASSWORD}@${STUDY_DB_HOST}/name"
    assert expand(url) == "postgresql+psycopg://me:p%40ss%2Fword@db.example/name"
    config = tiny(tmp_path, f"storage={url}")
    assert config.storage_url == url
    assert url in dump(config)
    assert "p@ss" not in dump(config) + repr(config)


def test_auto_picks_a_file_by_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kind(*settings: str) -> str:
        return tiny(tmp_path, *settings).storage_url.partition(":")[0]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(provenance, "cores", lambda: 16)
    assert kind() == "sqlite"
    monkeypatch.setattr(provenance, "cores", lambda: 96)
    assert kind() == "journal"
    assert kind("launcher.kind=inline") == "sqlite"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert kind() == "sqlite"
    assert kind("launcher.workers_per_gpu=5") == "journal"
    assert kind("launcher.workers_per_gpu=auto") == "journal"
    assert kind("device=cpu") == "journal"
    assert kind("launcher.workers=16") == "sqlite"
    assert kind("launcher.workers=17") == "journal"
    with pytest.raises(InputError, match="65 workers are more than a file bears"):
        kind("launcher.workers=65")
    assert kind("launcher.workers=65", "storage=postgresql://host/name") == "postgresql"
    create_study(tiny(tmp_path, "name=small"), ATTRIBUTES)
    assert kind("name=small", "launcher.workers=17") == "sqlite"  # where it was begun
    assert kind("name=small", "storage=journal") == "journal"


def test_a_study_of_before_there_were_kinds_goes_on(tmp_path: Path) -> None:
    assert tiny(tmp_path, "storage=null").storage == "auto"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{}/study.db?timeout=60",
        "sqlite:///${{FOLDER}}/study.db",
        "journal://{}/what?.journal",
        "journal",
    ],
)
def test_a_study_in_a_file_has_begun_once_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    config = tiny(tmp_path, f"storage={url.format(tmp_path)}")
    assert not config.begun
    create_study(config, ATTRIBUTES)
    assert config.begun


# ── A password is never shown again ──────────────────────────────────────────────────────


def test_a_password_reaches_nothing_that_people_read(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with storage_of("postgresql", tmp_path, request) as url:
        config = tiny(tmp_path, f"storage={url}", f"name={tmp_path.name}")
        study = create_study(config, ATTRIBUTES)
        claim(study)
        seen = [dump(config), json.dumps(study.user_attrs), repr(study._storage), caplog.text]
        seen += [json.dumps(trial.user_attrs) for trial in study.trials]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("STUDY_DB_PASSWORD", "wrong-s3cret")
            with pytest.raises(InputError, match="password authentication failed") as error:
                open_study(config)
        seen.append(str(error.value))
    for text in seen:
        assert "s3cret" not in text
    assert "${STUDY_DB_PASSWORD}" in seen[0]


# ── A storage that goes away ─────────────────────────────────────────────────────────────


def test_a_database_that_is_restarted_is_waited_for(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with storage_of("postgresql", tmp_path, request) as url:
        server: postgres.Server = request.getfixturevalue("postgresql")
        config = tiny(tmp_path, f"storage={url}", f"name={tmp_path.name}")
        study = create_study(config, ATTRIBUTES)
        trial = claim(study)
        assert trial is not None
        server.stop("immediate")
        try:
            with without_waiting(), pytest.raises(Unavailable):
                trial.report(0.5, 1)
            with without_waiting(), pytest.raises(Unavailable):
                study.get_trials()
            back = threading.Timer(2, server.start)
            back.start()
            trial.report(0.5, 1)
            study.tell(trial, 0.5)
            assert study.trials[0].intermediate_values == {1: 0.5}
            assert "waiting for up to 5 minutes" in caplog.text
            back.join()
        finally:
            if not server.answers():
                server.start()


def test_patience_ends_in_a_sentence(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.5)
    with storage_of("postgresql", tmp_path, request) as url:
        server: postgres.Server = request.getfixturevalue("postgresql")
        study = create_study(tiny(tmp_path, f"storage={url}", f"name={tmp_path.name}"), ATTRIBUTES)
        server.stop("immediate")
        try:
            with pytest.raises(Unavailable, match="storage of the study does not answer") as error:
                study.get_trials()
            assert "s3cret" not in str(error.value)
        finally:
            server.start()
        assert len(study.trials) == 7


def test_an_answer_that_was_lost_on_its_way_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result was recorded, and the connection broke before it was confirmed."""
    config = tiny(tmp_path)
    create_study(config, ATTRIBUTES)
    change = databases.Database.set_trial_state_values
    broken = iter([True])

    def breaking(self: Any, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = change(self, trial_id, state, values)
        if state == TrialState.COMPLETE and next(broken, False):
            raise ConnectionResetError("gone")
        return done

    monkeypatch.setattr(databases.Database, "set_trial_state_values", breaking)
    study = open_study(config)
    trial = claim(study)
    assert trial is not None
    study.tell(trial, 0.25)
    assert study.trials[0].value == 0.25


def test_a_locked_sqlite_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(databases, "LOCKED", 0.2)
    config = tiny(tmp_path, "storage=sqlite")
    study = create_study(config, ATTRIBUTES)
    other = sqlite3.connect(config.folder / "study.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.5, other.rollback).start()
    began = time.monotonic()
    trial = claim(study)
    assert trial is not None and trial.number == 0
    assert time.monotonic() - began > 1
    assert "database is locked" in caplog.text


# ── A journal that was cut off ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("tail", [b'{"op_code":6,"worker_', b"\0\0\0\0", b'{"op_code":6}'])
def test_a_record_that_was_cut_off_is_left_out(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(tmp_path, "storage=journal")
    study = create_study(config, ATTRIBUTES)
    assert claim(study) is not None
    file = config.folder / "study.journal"
    whole = file.read_bytes()
    file.write_bytes(whole + tail)  # its writer was killed, or the disk was full
    assert [t.state for t in open_study(config).trials].count(TrialState.RUNNING) == 1
    with caplog.at_level(logging.WARNING):
        second = claim(open_study(config))
    assert second is not None and second.number == 1
    assert "cut off" in caplog.text
    assert file.read_bytes().startswith(whole + b"{")
    assert [t.state for t in study.trials].count(TrialState.RUNNING) == 2  # seen by all
    for line in file.read_bytes().splitlines():
        json.loads(line)


def test_a_journal_that_is_damaged_in_its_middle_is_refused(tmp_path: Path) -> None:
    config = tiny(tmp_path, "storage=journal")
    create_study(config, ATTRIBUTES)
    file = config.folder / "study.journal"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], lines[3][:10] + b"\n", *lines[4:]]))
    with pytest.raises(InputError, match="is damaged: a record in its middle"):
        open_study(config)


def test_the_lock_of_a_worker_that_was_killed_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LOCKED", 3)
    config = tiny(tmp_path, "storage=journal")
    create_study(config, ATTRIBUTES)
    (config.folder / "study.journal.lock").touch()
    assert claim(open_study(config)) is not None


# ── The proxy ────────────────────────────────────────────────────────────────────────────


def test_serve_stands_in_front_of_a_database_and_ends_when_asked(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with storage_of("postgresql", tmp_path, request) as url:
        settings = ["-o", f"runs={tmp_path}", "-o", f"name={tmp_path.name}"]
        port = postgres.free_port()
        command = [sys.executable, "-m", "study", "serve", str(TINY), *settings]
        command += ["-o", f"storage={url}", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert f"grpc://127.0.0.1:{port}" in process.stdout.readline()
            config = tiny(tmp_path, f"storage=grpc://127.0.0.1:{port}", f"name={tmp_path.name}")
            study = create_study(config, ATTRIBUTES)
            assert claim(study) is not None
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("storage", ["journal", "grpc://127.0.0.1:1"])
def test_serve_refuses_what_is_no_database(tmp_path: Path, storage: str) -> None:
    with pytest.raises(InputError, match="stands in front of a database"):
        connection.serve(tiny(tmp_path, f"storage={storage}"), "127.0.0.1", 13000)


def test_a_journal_without_its_slashes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be a folder `journal:` of the working directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        connect("journal:/data/study.journal")
    assert list(tmp_path.iterdir()) == []
