"""Values that are given on the command line."""

from __future__ import annotations

import json
from typing import Any

from perdure.errors import ConfigError


def json_of(text: str, what: str) -> Any:
    """What a text of JSON says; ``what``: what it is, for the error. Raises ``ConfigError``.

    >>> json_of('{"sent": false}', "--result")
    {'sent': False}
    """
    try:
        return json.loads(text)
    except ValueError:
        raise ConfigError(f"{what} is not JSON: {text!r}. Text needs its own quotes: '{json.dumps(text)}'") from None
