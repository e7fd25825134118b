"""Commands that show what a study found: report, compare, and MLflow's UI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.commands.options import DEFAULT, File, Overrides, Port, console, load_study, open_begun
from study.errors import InputError

if TYPE_CHECKING:
    from study.config import StudyConfig

app = typer.Typer()
PANEL = "See what it found"


@app.command(rich_help_panel=PANEL)
def report(file: File = DEFAULT, override: Overrides = None) -> None:
    """Write the report of a study again, finished or not."""
    from study import findings

    config = load_study(file, override)
    findings.show(findings.write(config, open_begun(config)), console())


@app.command(rich_help_panel=PANEL)
def compare(
    files: Annotated[list[Path], typer.Argument(metavar="FILE FILE...", help="Studies, as YAML.")],
    to: Annotated[
        Path | None, typer.Option(help="The folder for the page; by default among the runs.")
    ] = None,
) -> None:
    """Compare the answers of studies on one page."""
    import reports
    from study.findings import short

    if len(files) < 2:
        raise InputError("compare: give two studies or more")
    configs = [load_study(file, None) for file in files]
    studies = [(open_begun(config)._storage, config.name) for config in configs]
    folder = to or configs[0].runs / "compared" / "-".join(config.name for config in configs)
    try:
        page = reports.compare(studies, folder)
    except reports.StudyUnreadable as error:
        raise InputError(str(error)) from None
    shown = console()
    shown.print(page.sentence, highlight=False, markup=False)
    place = f"comparison   {short(page.html)}"
    shown.print(place, highlight=False, markup=False, soft_wrap=True)


@app.command(rich_help_panel=PANEL)
def ui(
    file: File = DEFAULT,
    override: Overrides = None,
    port: Port = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Open MLflow's UI on a study.

    On this machine alone, unless told otherwise.
    """
    from study.tracking.address import tracking_uri
    from study.tracking.ui import serve

    config = load_study(file, override)
    experiment, parent = _logged(config)
    serve(
        tracking_uri(config.runs, config.tracking.uri),
        experiment,
        parent,
        artifacts=config.runs / "mlartifacts",
        host=host,
        port=port,
    )


def _logged(config: StudyConfig) -> tuple[str | None, str | None]:
    """MLflow's experiment and parent run of a study, where it has begun."""
    if not config.begun:
        return None, None
    from study.storage import open_study

    try:
        attribute = open_study(config).user_attrs.get("mlflow") or {}
    except InputError:  # MLflow's other studies can be shown all the same
        return None, None
    return attribute.get("experiment_id"), attribute.get("run_id")
