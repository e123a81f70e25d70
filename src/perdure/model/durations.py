"""Durations: a ``timedelta`` or a number of seconds, everywhere; microseconds inside.

Promises: one reading of a duration for the whole house, and one refusal, which shows the value and what it was for.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import cast

from perdure.errors import DefinitionError

Duration = timedelta | float
"""What a user may write where time is asked for: ``timedelta(minutes=5)`` or ``300`` (seconds)."""

DURATION_US_MAX = 100 * 366 * 86_400 * 1_000_000  # a century: what is longer is a mistake of units

_MICROSECOND = timedelta(microseconds=1)


def to_us(duration: Duration, what: str) -> int:
    """Give a duration in whole microseconds, rounded up so that a wait is never shorter than asked.

    ``what`` names the setting in the refusal (``DefinitionError``) of what is no duration, negative or too large::

        to_us(1.5, "delay")                  # 1_500_000
        to_us(timedelta(minutes=1), "delay")  # 60_000_000
    """
    given = cast("object", duration)  # callers without a type checker pass anything
    if isinstance(given, timedelta):
        us = given // _MICROSECOND
    elif isinstance(given, bool) or not isinstance(given, (int, float)):
        raise DefinitionError(f"{what}={duration!r} is not a duration; give seconds (1.5) or a timedelta.")
    elif isinstance(given, float):
        if not math.isfinite(given):
            raise DefinitionError(f"{what}={duration!r} is not a duration; give a finite number of seconds.")
        # Rounded first: 0.000003 * 1e6 is 2.9999…, and 1.1 * 1e6 a hair over 1_100_000.
        us = math.ceil(round(given * 1_000_000, 3))
    else:
        us = given * 1_000_000
    if us < 0:
        raise DefinitionError(f"{what}={duration!r} is negative; give zero or more seconds.")
    if us > DURATION_US_MAX:
        raise DefinitionError(f"{what}={duration!r} is more than a century; a number is seconds.")
    return us
