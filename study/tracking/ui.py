"""MLflow's own interface for a study: `python -m study ui`.

`serve` starts `mlflow server` on this machine, prints links that lead straight to the study (the
front page of MLflow is about other things), and stops the server again at Ctrl-C. Where the study
is logged to an MLflow server already, it only prints the links.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from reports.redaction import redact
from study.errors import InputError
from study.passwords import expand
from study.tracking.address import is_server, sqlite_file
from study.tracking.view import VIEW

_FIRST_PORT = 5000
_PORTS_TRIED = 50
_BOOT_SECONDS = 180.0
_STOP_SECONDS = 10.0
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def links(base: str, experiment_id: str | None, run_id: str | None = None) -> dict[str, str]:
    """Where things are in MLflow's interface, by what a person looks for.

    The first two open a view of the runs that the study saved with the experiment: the best trial
    first, in columns that are the study's questions.
    """
    base = base.rstrip("/")
    if experiment_id is None:
        return {"experiments": f"{base}/#/experiments"}
    runs = f"{base}/#/experiments/{experiment_id}/runs"
    kind = "workflowType=machine_learning"  # else MLflow opens its pages about language models
    view = f"{kind}&viewStateShareKey={VIEW}"
    found = {"trials": f"{runs}?{view}", "curves": f"{runs}?{view}&compareRunsMode=CHART"}
    if run_id is not None:
        found["study"] = f"{runs}/{run_id}?{kind}"
        found["report"] = f"{runs}/{run_id}/artifacts/report/index.html?{kind}"
    return found


def serve(
    uri: str,
    experiment_id: str | None = None,
    run_id: str | None = None,
    *,
    artifacts: Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Open MLflow's interface and keep it open until Ctrl-C (or SIGTERM).

    Args:
        uri: the study's tracking address, from `study.tracking.address.tracking_uri`.
        experiment_id: the study's experiment; None leads to the list of all.
        run_id: the study's parent run.
        artifacts: the folder of files, as for `prepare`; beside the database by default.
        host: the address to listen at. The interface asks for no password, so anything but
            loopback opens the studies to the network.
        port: None takes 5000 or the next one that is free.
        say: prints a line for the user.

    Raises:
        InputError: when there is nothing to show, the named port is in use, or the server does
            not start.

    """
    if is_server(uri):
        say("This study is logged to an MLflow server, which shows it at:")
        shown = expand(redact(uri).replace("***@", ""))  # without who may, or what they need
        _say_links(say, links(shown, experiment_id, run_id))
        return
    with _stop_on_sigterm(), contextlib.suppress(KeyboardInterrupt):
        say("Starting MLflow's interface; this takes a few seconds …")
        with server(uri, artifacts=artifacts, host=host, port=port, say=say) as (base, process):
            _say_links(say, links(base, experiment_id, run_id))
            say("Press Ctrl-C to stop.")
            process.wait()
            raise InputError("MLflow's server ended by itself; start it again.")
    say("Stopped.")


@contextlib.contextmanager
def server(
    uri: str,
    *,
    artifacts: Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running MLflow server over a database: its address and its process.

    It answers when the block begins and is gone, with all its children, when the block ends.
    """
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise InputError(f"There is no MLflow database {database} yet: run a study first.")
    port = free_port(host, port, say)
    folder = artifacts or (database.parent if database else Path.cwd()) / "mlartifacts"
    with tempfile.TemporaryFile() as log:
        process = _start(uri, folder, host, port, log.fileno())
        try:
            if not _answers(process, host, port):
                log.seek(0)
                end = log.read().decode(errors="replace").strip().splitlines()[-8:]
                raise InputError("MLflow's server did not start:\n" + redact("\n".join(end)))
            shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 (compared)
            yield f"http://{shown}:{port}", process
        finally:
            _stop(process)


def free_port(
    host: str,
    port: int | None,
    say: Callable[[str], None] = print,
    *,
    first: int = _FIRST_PORT,
) -> int:
    """The port itself when it is free; for None the first free one from `first` on, and say so.

    Raises:
        InputError: when the named port is in use or not to be had, or none is free.

    """
    if port is not None:
        if not _is_free(host, port):
            raise InputError(f"Port {port} of {host} is in use: name another one, or none.")
        return port
    for candidate in range(first, first + _PORTS_TRIED):
        if _is_free(host, candidate):
            if candidate != first:
                say(f"Port {first} is in use; taking {candidate}.")
            return candidate
    raise InputError(f"No port from {first} to {first + _PORTS_TRIED - 1} of {host} is free.")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the server will do: a port that closed a moment ago counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(_refusal(error, host, port)) from None
            return False
    return True


def _refusal(error: OSError, host: str, port: int) -> str:
    """Why nobody could listen here, whoever else does."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is no address of this machine: name one that is, or none."
    if error.errno == errno.EACCES:
        return f"Port {port} is for the administrator of this machine: name one from 1024 on."
    return f"Nobody can listen on port {port} of {host} ({error.strerror}): name another address."


def _start(uri: str, folder: Path, host: str, port: int, log: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--artifacts-destination", folder.resolve().as_uri()]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": expand(uri),  # not an argument: those are for all to read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, for nothing
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a group of its own, to be stopped as a whole
    )


def _answers(process: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Wait until the server is up. It asks directly: a proxy knows nothing of this machine."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return process.poll() is None
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all its children: asked first, then by force."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
    # The second round is for children that outlived the first; usually there is no one left.


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end the block like Ctrl-C, so that nothing is orphaned."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_links(say: Callable[[str], None], found: dict[str, str]) -> None:
    for what, link in found.items():
        say(f"  {what:<12}{link}")
