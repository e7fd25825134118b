"""From content to files: the templates' environment, and files that are replaced in one step."""

from __future__ import annotations

import os
import re
import tempfile
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from reports import wording
from reports.comparison import told
from reports.style import Panel, inline_svg


def style() -> Markup:
    """Return the style sheets of every page."""
    sheets = [
        resources.files("reports").joinpath(name).read_text(encoding="utf-8")
        for name in ("style.css", "checks.css", "recognition.css")
    ]
    return Markup("\n".join(sheets))  # noqa: S704 - our own style sheets


def safe_svg(panel: Panel) -> Markup:
    """Return a panel as SVG that a page may hold as it is."""
    # Matplotlib has escaped every name in it, and inline_svg the alternative text.
    return Markup(inline_svg(panel))  # noqa: S704


def environment() -> jinja2.Environment:
    """Return Jinja with the templates and the filters of the pages; everything is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("reports", "."),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("percent", "number", "count", "duration", "points", "counted", "p_value"):
        found.filters[name] = getattr(wording, name)
    found.filters["cell"] = _cell
    found.filters["code"] = _code
    found.filters["told"] = told
    return found


def _cell(text: object) -> Markup:
    """Escape text for Markdown, also inside a table: neither tags nor emphasis nor new cells."""
    escaped = str(Markup.escape(" ".join(str(text).split())))
    marked = "".join(f"\\{c}" if c in "\\`*_[]|~" else c for c in escaped)
    return Markup(marked)  # noqa: S704


def _code(text: object) -> Markup:
    """Return text as code in Markdown; escaped, and no code, where it has other signs than names.

    Inside of code nothing can be escaped: a backslash would be shown.
    """
    plain = str(text)
    # Letters, digits and these mean nothing to Markdown, nor to HTML.
    return Markup(f"`{plain}`") if re.fullmatch(r"[\w .:/+=-]*\w", plain) else _cell(plain)  # noqa: S704


def replace(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
