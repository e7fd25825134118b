"""One study on each kind of storage, for tests that must hold on all of them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.storages._grpc.server import make_server

from study.config import StudyConfig
from study.config_file import load
from study.connection import _connect
from tests import postgres

TINY = Path(__file__).parent.parent / "tiny_study.yaml"
ATTRIBUTES = {"corpus": {"fingerprint": "abc"}}
KINDS = ("sqlite", "journal", "postgresql", "grpc")


def tiny(folder: Path, *overrides: str) -> StudyConfig:
    """The tiny study with its runs in a folder."""
    return load(TINY, [f"runs={folder}", *overrides])


@contextmanager
def storage_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """What to write under `storage` for a kind; its server runs as long as the block does."""
    if kind in ("sqlite", "journal"):
        yield kind
        return
    server: postgres.Server = request.getfixturevalue("postgresql")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STUDY_DB_PASSWORD", postgres.PASSWORD)
        url = server.create(folder.name)
        if kind == "postgresql":
            yield url
            return
        port = postgres.free_port()
        proxy = make_server(_connect(url), "127.0.0.1", port)
        proxy.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            proxy.stop(grace=None).wait()


def together(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function returns in each of several processes, which begin in the same moment."""
    context = multiprocessing.get_context("forkserver")  # imports once, and forks no threads
    users = ["tests.study.test_leases", "tests.study.test_storage"]
    context.set_forkserver_preload(["study.storage", "psycopg", "grpc", *users])
    barrier = context.Barrier(count)
    results = context.SimpleQueue()
    processes = [
        context.Process(
            target=_begin_together, args=(barrier, results, dict(os.environ), work, arguments)
        )
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    return found


def _begin_together(
    barrier: Any, results: Any, variables: dict[str, str], work: Callable[..., Any], arguments: Any
) -> None:
    os.environ.update(variables)
    try:
        barrier.wait()
        results.put(work(*arguments))
    except BaseException as error:
        results.put(repr(error))
        raise
