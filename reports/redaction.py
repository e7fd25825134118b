"""Takes passwords out of URLs before any text of a study reaches a page."""

from __future__ import annotations

import re
from typing import Any

_PASSWORD_IN_URL = re.compile(r"(://[^\s:/@]*):[^\s]*@")
_TOKEN_IN_URL = re.compile(r"(https?://)[^\s:/@]+@")  # the user of a web address can be a token
_PASSWORD_IN_QUERY = re.compile(r"([?&](?:password|passwd|pwd|token)=)[^\s&]+", re.IGNORECASE)


def redact(value: Any) -> Any:
    """Return JSON-like data with the password of every URL in its strings replaced by `***`."""
    if isinstance(value, str):
        value = _TOKEN_IN_URL.sub(r"\1***@", _PASSWORD_IN_URL.sub(r"\1:***@", value))
        return _PASSWORD_IN_QUERY.sub(r"\1***", value)
    if isinstance(value, dict):
        return {redact(key): redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value
