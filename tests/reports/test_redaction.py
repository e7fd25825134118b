"""What is taken out of a text before anybody sees it, and what is left in."""

from __future__ import annotations

import pytest

from reports.redaction import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:geheim@host/db", "postgresql://***@host/db"),
        ("postgresql://me:a/b@c@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://me:ge@heim@host:3306/db", "mysql+pymysql://***@host:3306/db"),
        ("failed: (http://token@host) 'x'", "failed: (http://***@host) 'x'"),
        ("mysql://h/db?user=me&password=geheim&x=1", "mysql://h/db?user=me&password=***&x=1"),
        ("http://h/?client_SECRET=geheim", "http://h/?client_SECRET=***"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("at 10:30 me@host", "at 10:30 me@host"),
    ],
)
def test_passwords_are_removed_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact({text: [(text, 1, None)]}) == {shown: [[shown, 1, None]]}
