"""Spans of time as a command line has them."""

from __future__ import annotations

import re
from datetime import timedelta

from perdure.errors import ConfigError
from perdure.model.durations import DURATION_US_MAX

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}  # in seconds; a bare number is seconds
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")


def duration(text: str, what: str) -> timedelta:
    """``30s``, ``5m``, ``1h``, ``1d``. Raises ``ConfigError`` naming ``what``."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{what} {text!r} is no duration; give 30s, 5m, 1h or 1d")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds * 1_000_000 > DURATION_US_MAX:
        raise ConfigError(f"{what} {text!r} is more than a century; give 30s, 5m, 1h or 1d")
    return timedelta(seconds=seconds)
