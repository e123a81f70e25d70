"""From a literal, as it was written for a field, to the values that it stands for: several where a name is a set.

Promises: what does not fit is ``Unfit``, with what would; every number fits a database's 64 bits; every text is text
that a database can hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from perdure.errors import did_you_mean
from perdure.model.durations import DURATION_US_MAX
from perdure.model.info import from_datetime
from perdure.model.problems import ProblemKind
from perdure.model.states import CLOSED, OPEN, Reason, Status, Versioning
from perdure.query.conditions import Now, Value
from perdure.query.fields import Field, Reading
from perdure.query.marks import Unfit
from perdure.query.problems import WRITTEN as PROBLEMS
from perdure.query.tree import Literal, Span, Written

INT_MAX = 2**63 - 1
DIGITS_MAX = 300  # of a number as written

UNITS = {
    "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000,
    "w": 7 * 86_400_000_000,
}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|[smhdw])", re.IGNORECASE)
_SPAN = re.compile(rf"(?:{_PART.pattern})+", re.IGNORECASE)
_WORDS = (Written.TEXT, Written.WORD)


def duration(raw: str, at: Span) -> int:
    """``1h30m`` in microseconds."""
    if len(raw) > DIGITS_MAX:
        raise Unfit(at, "the duration is too long; write e.g. 90s, 5m, 1h30m or 2d")
    us = sum(Fraction(number) * UNITS[unit.lower()] for number, unit in _PART.findall(raw))
    if us > DURATION_US_MAX:
        raise Unfit(at, f"the duration {raw} is more than a century")
    return int(us)


def number(raw: str, at: Span) -> int | float:
    """A number: a whole one if it is written as one and fits."""
    if len(raw) > DIGITS_MAX:
        raise Unfit(at, f"the number has {len(raw)} characters; {DIGITS_MAX} are the most")
    if re.fullmatch(r"[+-]?\d+", raw) and abs(int(raw)) <= INT_MAX:
        return int(raw)
    value = float(raw)
    if value in (float("inf"), float("-inf")):
        raise Unfit(at, f"the number {raw} is too large")
    return value


def values_of(field: Field, literal: Literal, app: str) -> tuple[Value, ...]:
    """What a literal means for that field. Raises ``Unfit``."""
    if field.reading is Reading.VERSION_OF_APP:
        return (_version(literal, field, app),)
    return _READERS[field.reading](literal, field)


# -- what is ordered


def _text(literal: Literal, field: Field) -> tuple[Value, ...]:
    if literal.how not in _WORDS:
        raise Unfit(literal.at, f"{field.name} is text; write it in quotes: '{literal.raw}'")
    return (literal.value,)


def _whole(literal: Literal, field: Field) -> tuple[Value, ...]:
    if literal.how is not Written.NUMBER or not isinstance(literal.value, int):
        raise Unfit(literal.at, f"{field.name} is a whole number, not {literal.raw}; write e.g. {field.name} > 2")
    return (literal.value,)


def _time(literal: Literal, field: Field) -> tuple[Value, ...]:
    if literal.how is Written.NOW:
        return (Now(int(literal.value)),)
    try:
        if literal.how not in (*_WORDS, Written.TIME):
            raise ValueError
        when = datetime.fromisoformat(str(literal.value))
        return (from_datetime(when if when.tzinfo is not None else when.replace(tzinfo=UTC)),)
    except (ValueError, OverflowError):
        raise Unfit(
            literal.at,
            f"{field.name} is a time, which {literal.raw} is not; "
            "write e.g. '2026-11-20', '2026-11-20T10:00:00Z' or now - 2h",
        ) from None


def _span(literal: Literal, field: Field) -> tuple[Value, ...]:
    if literal.how is Written.DURATION:
        return (literal.value,)
    if literal.how in _WORDS and _SPAN.fullmatch(str(literal.value)):
        return (duration(str(literal.value), literal.at),)
    raise Unfit(literal.at, f"{field.name} is a duration, which {literal.raw} is not; write e.g. 90s, 5m, 1h30m or 2d")


def _any(literal: Literal, field: Field) -> tuple[Value, ...]:
    if literal.how is Written.NOW:
        raise Unfit(literal.at, f"{field.name} is compared with text, numbers, true and false, not with now")
    if literal.how in (Written.DURATION, Written.TIME):
        return (literal.raw,)
    return (literal.value,)


def _version(literal: Literal, field: Field, app: str) -> str:
    """The seed names a version with its deployment: that must be this app, or nothing could ever match."""
    text = str(_text(literal, field)[0])
    deployment, colon, version = text.partition(":")
    if not colon:
        return text
    if app and deployment != app:
        raise Unfit(
            literal.at, f"this is app {app!r}; {text!r} names a version of {deployment!r}. Write '{app}:{version}'"
        )
    return version


# -- what is chosen from a few


def _plain(text: str) -> str:
    return re.sub(r"[_\s-]", "", text).lower()


_STATUSES: dict[str, frozenset[Status]] = {
    **{_plain(status): frozenset({status}) for status in Status},
    "open": OPEN,
    "closed": CLOSED,
    "canceled": frozenset({Status.CANCELLED}),
    "continuedasnew": frozenset({Status.CONTINUED}),
}
_VERSIONINGS: dict[str, Versioning] = {
    **{_plain(versioning): versioning for versioning in Versioning},
    "unspecified": Versioning.UNDECLARED,
}
_REASONS: dict[str, Reason] = {_plain(reason): reason for reason in Reason}
_PROBLEMS = {_plain(written): kinds for written, kinds in PROBLEMS.items()}


def _chosen(literal: Literal, field: Field, known: dict[str, Any], shown: list[str]) -> Any:
    """What that name stands for among the known ones."""
    text = str(literal.value)
    found = known.get(_plain(text)) if literal.how in _WORDS else None
    if found is None:
        near = did_you_mean(text.lower(), [*map(str, shown), *known])
        raise Unfit(
            literal.at, f"{literal.raw} is not {field.reading}{near}; {field.name} is one of {', '.join(shown)}"
        )
    return found


def _status(literal: Literal, field: Field) -> tuple[Value, ...]:
    """``Running`` is the seed's word for every open status; ``running`` is one of ours."""
    if literal.value == "Running" or (field.reading is Reading.SEED_STATUS and str(literal.value).lower() == "running"):
        return tuple(sorted(OPEN))
    if str(literal.value) == "Paused":
        raise Unfit(literal.at, "what is paused is held for that reason; write reason = paused")
    return tuple(sorted(_chosen(literal, field, _STATUSES, ["open", "closed", *Status])))


def _versioning(literal: Literal, field: Field) -> tuple[Value, ...]:
    return (_chosen(literal, field, _VERSIONINGS, [*Versioning]),)


def _reason(literal: Literal, field: Field) -> tuple[Value, ...]:
    return (_chosen(literal, field, _REASONS, [*Reason]),)


def _problem(literal: Literal, field: Field) -> tuple[Value, ...]:
    found: tuple[ProblemKind, ...] = _chosen(literal, field, _PROBLEMS, [*PROBLEMS])
    return found


_READERS: dict[Reading, Callable[[Literal, Field], tuple[Value, ...]]] = {
    Reading.TEXT: _text,
    Reading.WHOLE: _whole,
    Reading.TIME: _time,
    Reading.SPAN: _span,
    Reading.STATUS: _status,
    Reading.SEED_STATUS: _status,
    Reading.REASON: _reason,
    Reading.PROBLEM: _problem,
    Reading.VERSIONING: _versioning,
    Reading.ANY: _any,
}
