from __future__ import annotations

import base64
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from study.errors import InputError
from study.tracking.address import tracking_uri
from study.tracking.parent import log_report
from study.tracking.runs import Tracker
from study.tracking.store import Experiment, prepare
from study.tracking.ui import free_port, links, serve, server
from tests.browser import browser, needs_browser, see
from tests.command_line import CommandLine
from tests.study.storages import TINY

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["browser"]

PAGE = """<!doctype html><title>Report</title><h1>What shape?</h1><p id="answer"></p>
<script>document.getElementById("answer").textContent = ["two", "layers"].join(" ")</script>"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A small finished study: three trials with three evaluations each, and a report."""
    runs = tmp_path_factory.mktemp("runs")
    experiment = _study(tracking_uri(runs, None), runs)
    assert experiment is not None
    return experiment


def _study(uri: str, runs: Path) -> Experiment | None:
    experiment = prepare(
        uri,
        runs / "mlartifacts",
        "laptop",
        description="# Study `laptop`\n\nWhat shape should a Conformer have?",
        tags={"git_commit": "0123abcd"},
        params={"name": "laptop"},
    )
    tracker = Tracker(experiment)
    for number, outcome in enumerate(("finished", "pruned", "finished")):
        anchor = "conformer-s" if number == 0 else None
        params = {"encoder_layers": number + 2, "encoder_dim": 64}
        run = tracker.start(number, params=params, tags={"phase": "explore", "anchor": anchor})
        for n in (1, 2, 3):
            wer = (3 - number) / (4 * n)
            run.log_evaluation({"evaluation": n, "wer": wer, "dev_loss": 2 / n})
        run.finish(outcome, metrics={"parameters": 61_000})
    page = runs / "index.html"
    page.write_text(PAGE)
    assert log_report(experiment, page, metrics={"best_wer": 0.25}, tags={"best_trial": 2})
    return experiment


@pytest.fixture(scope="module")
def served(study: Experiment) -> Iterator[str]:
    """The address of MLflow's server over the study, booted once."""
    said: list[str] = []
    with server(study.tracking_uri, port=_unused_port(), say=said.append) as (base, process):
        yield base
        assert process.poll() is None
    assert _gone(process.pid)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _gone(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


# ── Where there is nothing to serve ──────────────────────────────────────────────────────


def test_without_a_database_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run a study first"):
        serve(tracking_uri(tmp_path, None))
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_refused_when_named_and_passed_over_when_not(study: Experiment) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {taken} of 127.0.0.1 is in use"):
            serve(study.tracking_uri, port=taken)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 5000))
            other.listen()
        except OSError:
            pass  # someone else's server stands there, which is just as good
        said: list[str] = []
        port = free_port("127.0.0.1", None, said.append)
        assert port > 5000
        assert said == [f"Port 5000 is in use; taking {port}."]


def test_an_address_of_another_machine_is_refused(study: Experiment) -> None:
    for port in (_unused_port(), None):
        with pytest.raises(InputError, match=r"'192\.0\.2\.1' is no address of this machine"):
            serve(study.tracking_uri, host="192.0.2.1", port=port)


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (errno.EACCES, "Port 80 is for the administrator of this machine"),
        (errno.EAFNOSUPPORT, "Nobody can listen on port 80 of 127.0.0.1"),
        (errno.EADDRINUSE, "Port 80 of 127.0.0.1 is in use"),
    ],
)
def test_why_nobody_can_listen_is_told(
    monkeypatch: pytest.MonkeyPatch, reason: int, sentence: str
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(InputError, match=sentence):
        free_port("127.0.0.1", 80)


@pytest.mark.parametrize("command", ["ui", "dashboard", "serve"])
@pytest.mark.parametrize("port", ["0", "70000", "-1"])
def test_a_port_that_there_is_not_is_refused(
    command_line: CommandLine, command: str, port: str
) -> None:
    code, _, errors = command_line(command, TINY, "--port", port)
    assert code == 2
    assert "invalid value for '--port': Input should be" in errors


def test_a_server_that_does_not_start_says_why_without_the_password() -> None:
    # A database whose driver is missing: with PostgreSQL, MLflow would try for 100 seconds.
    with pytest.raises(InputError, match="did not start") as caught:
        serve("mysql://me:geheim@127.0.0.1:9/mlflow", port=_unused_port(), say=lambda _: None)
    assert "geheim" not in str(caught.value)


def test_a_remote_server_is_only_linked_to() -> None:
    said: list[str] = []
    serve("http://me:geheim@host:5000/", "3", "abc", say=said.append)
    text = "\n".join(said)
    assert "http://host:5000/#/experiments/3/runs?workflowType=machine_learning" in text
    assert "http://host:5000/#/experiments/3/runs/abc" in text
    assert "geheim" not in text
    assert list(links("http://host:5000", None).values()) == ["http://host:5000/#/experiments"]


def test_ctrl_c_stops_the_server_and_all_its_children(study: Experiment) -> None:
    program = (
        "import sys; from study.tracking.ui import serve; "
        "serve(sys.argv[1], '1', port=int(sys.argv[2]), say=lambda s: print(s, flush=True))"
    )
    port = _unused_port()
    command = [sys.executable, "-c", program, study.tracking_uri, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        while said[-1] and "Ctrl-C" not in said[-1]:
            said.append(process.stdout.readline())
        assert any(f"http://127.0.0.1:{port}/#/experiments/1/runs?" in line for line in said)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        group = int(children.read_text().split()[0]) if children.exists() else None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert "Stopped." in process.stdout.read()
    assert free_port("127.0.0.1", port) == port
    assert group is None or _gone(group)


# ── What a person sees ───────────────────────────────────────────────────────────────────


@needs_browser
def test_the_trials_are_listed_best_first(served: str, study: Experiment, browser: Chrome) -> None:
    browser.get(links(served, study.experiment_id, study.run_id)["trials"])
    shown = see(browser, "laptop", "trial 0 · conformer-s", "trial 1 (pruned)", "trial 2", "wer")
    assert shown.index("trial 2") < shown.index("trial 1 (pruned)") < shown.index("trial 0 ·")
    see(browser, "encoder_dim", "61000")  # columns that MLflow hides by default
    assert "Study laptop" in shown  # the description


@needs_browser
def test_the_curves_of_all_trials_are_drawn(
    served: str, study: Experiment, browser: Chrome
) -> None:
    browser.get(links(served, study.experiment_id)["curves"])
    see(browser, "The study", "trial 2", "dev_loss", "encoder_layers")
    deadline = time.monotonic() + 20
    drawn = 0
    while drawn < 3 and time.monotonic() < deadline:  # three curves in at least one chart
        charts = browser.find_elements("css selector", ".js-plotly-plot")
        traces = [chart.find_elements("css selector", ".scatterlayer .trace") for chart in charts]
        drawn = max(map(len, traces), default=0)
    assert drawn >= 3


@needs_browser
def test_a_chart_shows_wer_against_encoder_dim(
    served: str, study: Experiment, browser: Chrome
) -> None:
    browser.get(links(served, study.experiment_id)["curves"])
    see(browser, "encoder_layers vs. wer", "encoder_dim vs. wer")
    find = """
        const charts = [...document.querySelectorAll('.js-plotly-plot')];
        const of = charts.filter(c => c.layout?.xaxis?.title?.text === 'encoder_dim');
        of.forEach(c => c.scrollIntoView());
        return of.flatMap(c => c.data.flatMap(
            t => [...t.x].map((x, i) => [Number(x), Number(t.y[i])])));"""
    deadline = time.monotonic() + 20
    points: list[list[float]] = []
    while len(points) < 3 and time.monotonic() < deadline:
        points = browser.execute_script(find)
        time.sleep(0.2)
    assert sorted(points) == [[64, pytest.approx(wer)] for wer in (1 / 12, 2 / 12, 3 / 12)]


@needs_browser
def test_the_study_lists_its_trials_and_the_answer(
    served: str, study: Experiment, browser: Chrome
) -> None:
    browser.get(links(served, study.experiment_id, study.run_id)["study"])
    see(browser, "Child runs", "trial 0 · conformer-s", "trial 1 (pruned)", "trial 2", "Finished")
    see(browser, "best_wer", "What shape should a Conformer have?", "python -m study")


@needs_browser
def test_a_trial_shows_its_curve(served: str, study: Experiment, browser: Chrome) -> None:
    from mlflow import MlflowClient

    runs = MlflowClient(tracking_uri=study.tracking_uri).search_runs(
        [study.experiment_id], "tags.trial = '2'"
    )
    page = links(served, study.experiment_id, runs[0].info.run_id)["study"]
    browser.get(page.replace("?", "/model-metrics?"))
    see(browser, "trial 2", "wer", "dev_loss", "Step")
    deadline = time.monotonic() + 20
    points = 0
    while points < 3 and time.monotonic() < deadline:
        points = len(browser.find_elements("css selector", ".scatterlayer .points path"))
    assert points >= 3


@needs_browser
def test_the_report_is_rendered_with_its_script(
    served: str, study: Experiment, browser: Chrome
) -> None:
    browser.get(links(served, study.experiment_id, study.run_id)["report"])
    see(browser, "report/index.html")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        frames = browser.find_elements("css selector", "iframe")
        if frames:
            break
    else:
        pytest.fail("the report is in no frame")
    browser.switch_to.frame(frames[0])
    try:
        see(browser, "What shape?", "two layers")
    finally:
        browser.switch_to.default_content()


@pytest.fixture
def guarded(served: str) -> Iterator[str]:
    """The same server behind a password, as behind a proxy of an institute."""
    wanted = "Basic " + base64.b64encode(b"me:geheim").decode()

    class Guard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_error(401)
                return
            length = int(self.headers.get("Content-Length") or 0)
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            request = urllib.request.Request(  # noqa: S310
                served + self.path,
                data=self.rfile.read(length) if length else None,
                headers=headers,
                method=self.command,
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                    status, body = reply.status, reply.read()
            except urllib.error.HTTPError as error:
                status, body = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    guard = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    threading.Thread(target=guard.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{guard.server_port}"
    guard.shutdown()
    guard.server_close()


def test_a_password_comes_from_mlflows_own_environment_and_is_never_logged(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    def begin() -> Experiment | None:
        return prepare(guarded, tmp_path, "guarded", description="", tags={}, params={"a": 1})

    assert begin() is None
    assert "401" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    experiment = begin()
    assert experiment is not None
    run = Tracker(experiment).start(0, params={"encoder_layers": 2})
    run.log_evaluation({"evaluation": 1, "wer": 0.5})
    run.finish("finished")
    assert run.delivered
    assert "geheim" not in caplog.text + repr(experiment) + str(experiment.as_attribute())


def test_a_study_logs_to_a_server_as_well(served: str, study: Experiment, tmp_path: Path) -> None:
    """The same store through HTTP, as workers on other machines reach it."""
    from mlflow import MlflowClient

    over_http = replace(study, tracking_uri=served)
    (tmp_path / "config.json").write_text("{}")
    run = Tracker(over_http).start(3, params={"encoder_layers": 5}, tags={"phase": "refine"})
    run.log_evaluation({"evaluation": 1, "wer": 0.75})
    run.finish("stopped", artifacts=[tmp_path / "config.json"])
    assert run.run_id is not None
    logged = MlflowClient(tracking_uri=study.tracking_uri).get_run(run.run_id)
    assert (logged.info.status, logged.data.metrics["wer"]) == ("KILLED", 0.75)
    own = prepare(served, tmp_path, "remote", description="", tags={}, params={})
    assert own is not None
    (tmp_path / "index.html").write_text(PAGE)
    assert log_report(own, tmp_path / "index.html")
    files = MlflowClient(tracking_uri=served).list_artifacts(own.run_id, "report")
    assert [file.path for file in files] == ["report/index.html"]
