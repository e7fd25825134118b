"""What a model heard, as a page that MLflow shows beside a trial."""

from __future__ import annotations

import html
import json
from pathlib import Path

_WORST_HYPOTHESES = 200


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def hypotheses_page(file: Path) -> str:
    """What a model heard, as a page: the utterances with most errors first, at most 200.

    Transcripts are escaped: they come from outside.
    """
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    lines.sort(key=lambda line: (-int(line["errors"]), str(line["id"])))
    keys = ("errors", "words", "id", "reference", "hypothesis", "ctc_hypothesis")
    rows = [
        "<tr>" + "".join(f"<td>{html.escape(_shown(line.get(key)))}</td>" for key in keys)
        for line in lines[:_WORST_HYPOTHESES]
    ]
    heads = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in keys)
    errors = sum(int(line["errors"]) for line in lines)
    words = sum(int(line["words"]) for line in lines)
    return (
        "<!doctype html><meta charset='utf-8'><title>Hypotheses</title><style>"
        "body{font:14px system-ui,sans-serif;margin:1rem}table{border-collapse:collapse}"
        "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}"
        "td:nth-child(-n+2){text-align:right}</style>"
        f"<p>{errors} word errors in {words} words of {len(lines)} utterances; "
        f"{'all' if len(rows) == len(lines) else f'the worst {len(rows)}'} are shown, "
        f"most errors first.</p><table><tr>{heads}</tr>{''.join(rows)}</table>"
    )
