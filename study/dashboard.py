"""`python -m study dashboard`: Optuna Dashboard on a study, in this process.

It runs here and not as a command of its own, since the storage's URL, which may hold a password,
would then stand among the arguments that everyone on the machine can list.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from study.errors import InputError
from study.tracking.ui import free_port

FIRST_PORT = 8080


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each request, so that one slow page does not hold up the others."""

    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """Does not tell of each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def serve(
    study: optuna.Study,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve Optuna Dashboard until Ctrl-C.

    Args:
        study: the study that the link leads to.
        host: the address to listen on. Nobody is asked for a password, so anything but loopback
            opens the study to the network.
        port: None takes 8080 or the next one that is free.
        say: prints a line for the user.

    Raises:
        InputError: where Optuna Dashboard is not installed, or the port is in use.

    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise InputError(
            f"dashboard: needs Optuna Dashboard: pip install optuna-dashboard ({error})"
        ) from None
    port = free_port(host, port, say, first=FIRST_PORT)
    server = make_server(
        host,
        port,
        wsgi(study._storage),
        server_class=_Server6 if ":" in host else _Server,
        handler_class=_Quiet,
    )
    name = f"[{host}]" if ":" in host else host
    with server:
        say(f"Optuna Dashboard: http://{name}:{port}/dashboard/studies/{study._study_id}")
        say("Press Ctrl-C to stop.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")
