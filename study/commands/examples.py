"""Examples of every command, which its `--help` ends with. A test parses each of them."""

from __future__ import annotations

import typer

from study.invocation import program

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": (
        "init ../corpora/mine",
        "init ../corpora/mine --to studies/mine.yaml --device cuda",
        "init ../kaldi/egs/mine/s5 --allow-outside",
    ),
    "keys": ("keys", "keys learning_rate", "keys gpu"),
    "run": (
        "run",
        "run studies/so762.yaml -o corpus.folder=PATH --device cuda",
        "run studies/fsdd.yaml -o explore.trials=2 -o refine.trials=0 --workers 1",
    ),
    "check": ("check", "check studies/so762.yaml -o corpus.folder=PATH"),
    "finalists": ("finalists", "finalists study.yaml -o finalists.seeds=5"),
    "sync": ("sync", "sync studies/so762.yaml"),
    "status": ("status", "status studies/so762.yaml --watch"),
    "dashboard": ("dashboard", "dashboard studies/so762.yaml --port 8080"),
    "worker": (
        "worker study.yaml",
        "worker --storage 'postgresql+psycopg://me:${STUDY_DB_PASSWORD}@host/db' --study laptop",
    ),
    "serve": ("serve study.yaml", "serve study.yaml --host 0.0.0.0 --port 13000"),
    "report": ("report", "report studies/so762.yaml"),
    "compare": ("compare one.yaml other.yaml", "compare one.yaml other.yaml --to pages"),
    "ui": ("ui", "ui studies/so762.yaml --port 5000"),
    "transcribe": (
        "transcribe recording.wav",
        "transcribe talk.mp3 --study studies/so762.yaml --segments",
        "transcribe a.flac b.ogg --json --greedy",
    ),
    "register": ("register", "register studies/so762.yaml --name so762 --alias champion"),
    "export espnet": ("export espnet", "export espnet studies/so762.yaml --to winner"),
    "corpus": ("corpus", "corpus studies/so762.yaml -o corpus.folder=PATH"),
    "count": (
        "count conformer-s espnet-ksponspeech",
        "count espnet-librispeech-100 encoder_layers=16 --vocabulary 5000",
    ),
}


def attach(app: typer.Typer, group: str = "") -> None:
    """Let the help of the commands of an app end with their examples, and of the groups in it."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        lines = [f"`{program()} {example}`" for example in EXAMPLES.get(f"{group}{name}", ())]
        command.epilog = "\n\n".join(["**Examples**", *lines]) if lines else None
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        attach(inner.typer_instance, f"{group}{inner.name} ")
