"""A PostgreSQL server of the tests' own: Debian's binaries, a data folder, a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "s3cret/with@odd:characters"  # noqa: S105
"""Of the user `study`; it has what a URL would stumble over."""


def binaries() -> Path | None:
    """Where the server's programs are, the newest version first; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("pg_ctl")
    return folders[0] if folders else Path(found).parent if found else None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._programs = programs
        # PostgreSQL refuses to run as root, which tests in containers often are.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            shutil.chown(secret, self._user)
        self._run(
            "initdb", "-D", str(folder / "data"), "-U", "study", "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--no-sync",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -F"
        log = str(self._folder / "log")
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", log, "-o", options, "start"
        )

    def stop(self, how: str = "immediate") -> None:
        """Stop as in a crash, or `fast`."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", how, "stop")

    def answers(self) -> bool:
        """Whether it accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def create(self, database: str) -> str:
        """A new database; returns its URL with the password as a variable."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="study", password=PASSWORD, dbname="postgres",
            autocommit=True,
        ) as connection:  # fmt: skip
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        place = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql+psycopg://study:${{STUDY_DB_PASSWORD}}@{place}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        record = None if self._user is None else pwd.getpwnam(self._user)
        subprocess.run(
            command,
            check=True,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=None if record is None else record.pw_uid,
            group=None if record is None else record.pw_gid,
            extra_groups=None if record is None else [],
        )


@contextmanager
def server() -> Iterator[Server]:
    """A server for as long as the block runs; skips the test where it cannot be had."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        started = Server(Path(folder), programs)
        try:
            yield started
        finally:
            started.stop()
