"""Spans of time as a command line has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from perdure.errors import ConfigError
from perdure.model.durations import DURATION_US_MAX

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}  # in seconds; a bare number is seconds
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]?)")


def seconds_of(text: str, units: Mapping[str, int]) -> float | None:
    """A number and one of the units; None if it is none."""
    found = _SPAN.fullmatch(text.strip())
    return None if found is None or found[2] not in units else float(found[1]) * units[found[2]]


def is_too_long(seconds: float) -> bool:
    """Whether it is more than a century, and no duration that is taken anywhere."""
    return seconds * 1_000_000 > DURATION_US_MAX


def duration(text: str, what: str) -> timedelta:
    """``30s``, ``5m``, ``1h``, ``1d``. Raises ``ConfigError`` naming ``what``."""
    seconds = seconds_of(text, UNITS)
    if seconds is None:
        raise ConfigError(f"{what} {text!r} is no duration; give 30s, 5m, 1h or 1d")
    if is_too_long(seconds):
        raise ConfigError(f"{what} {text!r} is more than a century; give 30s, 5m, 1h or 1d")
    return timedelta(seconds=seconds)
