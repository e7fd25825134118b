"""Parses a report's page and checks what holds for every page."""

from __future__ import annotations

from html.parser import HTMLParser

import reports

_VOID = {"meta", "br", "path", "circle", "rect", "use", "link", "img", "hr", "stop"}


class Outline(HTMLParser):
    """Fails on tags that are not closed in order; keeps ids, addresses and the plain text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._keep(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._keep(tag, attrs)

    def _keep(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def outline(files: reports.ReportFiles) -> Outline:
    """Return the page's outline; no page has scripts, addresses outside, or an id twice."""
    parser = Outline()
    parser.feed(files.html.read_text(encoding="utf-8"))
    parser.text = " ".join(parser.text.split())
    assert parser.open == []
    assert "script" not in parser.tags
    assert len(parser.ids) == len(set(parser.ids))
    assert all(address.startswith("#") for address in parser.addresses)
    assert {address[1:] for address in parser.addresses} <= set(parser.ids)
    assert "nan" not in parser.text.lower().split()
    return parser
