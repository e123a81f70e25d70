"""Options of a start, as users write them, and their meaning in microseconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from perdure.client.questions import StartOptions
from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us
from perdure.model.ids import ID_BYTES_MAX
from perdure.model.info import from_datetime


class Options(TypedDict, total=False):
    """How a workflow is started.

    ``id``: the workflow id, which is the idempotency key. ``on_conflict``: what a taken id means: ``attach`` to it
    (the default; the same call again answers with the same outcome), ``fail``, or ``replace`` (cancel it, next run).
    ``delay``: not before this long, or this aware datetime. ``timeout``: from the first moment it runs.
    ``version``: run only on this version. ``attributes``: for searching. ``on_parent_close``: of a child, what its
    parent's end means. ``session``: start it in this transaction of yours (``.start`` only), so that it exists if that
    commits. Durations are timedeltas or seconds.
    """

    id: str
    on_conflict: Literal["attach", "fail", "replace"]
    version: str
    priority: int
    delay: Duration | datetime
    timeout: Duration
    attributes: Mapping[str, object]
    on_parent_close: Literal["cancel", "abandon", "wait"]
    session: object


_CHOICES = {"on_conflict": ("attach", "fail", "replace"), "on_parent_close": ("cancel", "abandon", "wait")}


def read_options(options: Mapping[str, Any], base: StartOptions) -> StartOptions:
    """Check options, give them their stored form and put them over ``base``.

    Raises ``DefinitionError`` showing the value.
    """
    known = Options.__annotations__
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise DefinitionError(f"there is no option {name!r}; options are: {', '.join(sorted(known))}")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise DefinitionError(f"{name}={value!r} is none of {', '.join(_CHOICES[name])}")
        match name:
            case "id":
                values["id"] = check_id(value)
            case "delay" if isinstance(value, datetime):
                if value.tzinfo is None:
                    raise DefinitionError(f"delay={value!r} has no time zone; give an aware datetime or a duration")
                values |= {"delay": None, "until": from_datetime(value)}
            case "delay":
                values |= {"delay": to_us(value, name), "until": None}
            case "timeout":
                values[name] = to_us(value, name)
            case "attributes":
                values["attributes"] = _attributes(value)
            case "version" if not isinstance(value, str):
                raise DefinitionError(f"version={value!r} is no version: give its text")
            case "priority" if type(value) is not int:
                raise DefinitionError(f"priority={value!r} is no priority: give a whole number")
            case _:
                values[name] = value
    return msgspec.structs.replace(base, **values)


def _attributes(value: Any) -> bytes:
    named: dict[Any, Any] = dict(value) if issubclass(type(value), Mapping) else {0: value}
    if not all(isinstance(name, str) for name in named):
        raise DefinitionError(f"attributes={value!r} are not names with values: give a dict such as {{'customer': 42}}")
    try:
        return msgspec.json.encode(named)
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(
            f"attributes={value!r} cannot be stored ({error}): give text, numbers, booleans, dates, lists of them"
        ) from None


def check_id(id: Any) -> str:
    """A workflow id: non-empty text of at most 512 bytes without NUL. Raises ``DefinitionError``."""
    try:
        good = isinstance(id, str) and 0 < len(id.encode()) <= ID_BYTES_MAX and "\0" not in id
    except UnicodeEncodeError:
        good = False
    if not good:
        raise DefinitionError(f"workflow id {id!r} cannot be used: non-empty text of at most {ID_BYTES_MAX} bytes")
    return str(id)
