"""Takes passwords out of addresses before any text of a study is shown, logged or stored."""

from __future__ import annotations

import re
from typing import Any, overload

_USER = re.compile(r"://(?:[^\s'\"/@]*:[^\s'\"]*|[^\s'\"/@]*)@")  # a user alone can be a token
_ARGUMENT = re.compile(
    r"([?&][^=&\s]*(?:password|passwd|pwd|secret|token)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)


@overload
def redact(value: str) -> str: ...
@overload
def redact(value: Any) -> Any: ...
def redact(value: Any) -> Any:
    """Return a text, or JSON-like data, without the passwords of the addresses in it.

    A part between ``://`` and ``@`` goes whole, as does the value of a query argument named like
    a secret. It rather removes too much than too little.
    """
    if isinstance(value, str):
        return _ARGUMENT.sub(r"\1***", _USER.sub("://***@", value))
    if isinstance(value, dict):
        return {redact(key): redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value
