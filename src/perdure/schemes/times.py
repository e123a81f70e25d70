"""When a timer of a scheme is due. Pure: it is told the time, and asks for values as an expression does.

Times are microseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from perdure.errors import SchemeError
from perdure.model.durations import to_us
from perdure.schemes import expressions
from perdure.schemes.expressions import Evaluation
from perdure.schemes.form import Timer

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME_OF_DAY = re.compile(r"\d\d:\d\d(:\d\d)?")
_SPAN = re.compile(
    r"(?:(\d+)\s*w)?\s*(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m)?\s*(?:(\d+(?:\.\d+)?)\s*s)?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def span(text: object) -> timedelta:
    """Read a duration as files write it: ``"1d 2h"``, ``"90s"``, or a number of seconds. Raises ``SchemeError``."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return timedelta(seconds=text)
    if isinstance(text, str):
        plain = text.strip()
        if plain.endswith("ms") and plain[:-2].strip().isdigit():
            return timedelta(milliseconds=int(plain[:-2]))
        found = _SPAN.fullmatch(plain) if plain else None
        if found is not None:
            weeks, days, hours, minutes, seconds = (float(part) if part else 0 for part in found.groups())
            return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    raise SchemeError(f"{text!r} is not a duration; write '3d', '1d 2h 30m', '90s', '250ms' or a number of seconds")


def due(timer: Timer, now: int) -> Evaluation:
    """When a timer armed ``now`` is due: yields the names that its expression asks for, returns the time or None.

    Raises ``TypeError`` if the expression gives what is no time. A time in the past is due at once.
    """
    if timer.after is not None:
        return now + timer.after
    if timer.every is not None:
        return now + timer.every
    text = timer.at or ""
    if _DATE.match(text):
        return _instant(datetime.fromisoformat(text), timer.tz)
    if _TIME_OF_DAY.fullmatch(text):
        return _next(time.fromisoformat(text), timer.tz, now)
    return _from_value((yield from expressions.evaluate(text)), timer, now)


def again(timer: Timer, due_at: int, now: int) -> int | None:
    """When an ``every`` timer that was due at ``due_at`` is due again, after now; None for one that fires once."""
    if timer.every is None:
        return None
    missed = max(0, now - due_at) // timer.every
    return due_at + (missed + 1) * timer.every


def wrong(timer: Timer) -> str | None:
    """What is wrong with a timer, if anything is."""
    given = [name for name in ("after", "every", "at") if getattr(timer, name) is not None]
    if len(given) != 1:
        return f"it has {' and '.join(given) or 'none of after, every and at'}; give exactly one"
    if timer.every is not None and timer.every <= 0:
        return f"every={timer.every / 1e6:g} seconds would fire without end; give a duration longer than nothing"
    try:
        ZoneInfo(timer.tz)
    except (ZoneInfoNotFoundError, ValueError):
        return f"{timer.tz!r} is no time zone; write for example Europe/Berlin"
    text = timer.at
    if text is None:
        return None
    try:
        if _DATE.match(text):
            datetime.fromisoformat(text)
        elif _TIME_OF_DAY.fullmatch(text):
            time.fromisoformat(text)
        else:
            expressions.normal(text)
    except (ValueError, SchemeError) as error:
        return f"at={text!r}: {error}; write '2026-12-24T18:00', '09:30', or an expression"
    return None if text.strip() else "at='' says no time; write '2026-12-24T18:00', '09:30', or an expression"


def names(timer: Timer) -> tuple[str, ...]:
    """The names that a timer's expression asks for."""
    text = timer.at
    if not text or _DATE.match(text) or _TIME_OF_DAY.fullmatch(text):
        return ()
    return expressions.names(text)


def _instant(moment: datetime, tz: str) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=ZoneInfo(tz))
    return (aware - _EPOCH) // _MICROSECOND


def _next(wanted: time, tz: str, now: int) -> int:
    zone = ZoneInfo(tz)
    today = (_EPOCH + timedelta(microseconds=now)).astimezone(zone).date()
    for days in range(3):  # a time that the clocks jump over lies after the jump, so that today's may be past already
        moment = _instant(datetime.combine(today + timedelta(days=days), wanted), tz)
        if moment > now:
            return moment
    raise AssertionError((wanted, tz, now))


def _from_value(found: Any, timer: Timer, now: int) -> int | None:
    if found is None:
        return None
    if isinstance(found, datetime):
        return _instant(found, timer.tz)
    if isinstance(found, date):
        return _instant(datetime.combine(found, time()), timer.tz)
    if isinstance(found, time):
        return _next(found, timer.tz, now)
    if isinstance(found, timedelta | int | float) and not isinstance(found, bool):
        return now + to_us(max(found, type(found)(0)), "at")
    raise TypeError(f"at={timer.at!r} gave {found!r}: give a datetime, a duration, seconds from now, or None for never")
