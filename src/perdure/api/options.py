"""Options of a start, as users write them, and their meaning in microseconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from perdure.api.queue import Queue, check_partition, check_queue
from perdure.client.questions import StartOptions
from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us
from perdure.model.ids import ID_BYTES_MAX
from perdure.model.info import from_datetime
from perdure.model.queues import PRIORITY_MAX
from perdure.model.text import KEY_BYTES_MAX, NEEDED, VERSION_MAX, is_kept, is_version
from perdure.serde.show import show


class Options(TypedDict, total=False):
    """How a workflow is started.

    ``id``: the workflow id, which is the idempotency key. ``on_conflict``: what a taken id means: ``attach`` to it
    (the default; the same call again answers with the same outcome), ``fail``, or ``replace`` (cancel it, next run).
    ``delay``: not before this long, or this aware datetime. ``timeout``: from the first moment it runs.
    ``queue``: stand in the line of this queue (itself or its name), by ``priority`` (smaller first, default 0), then
    first in, first out. ``partition``: a part of the queue with limits of its own. ``dedup``: a key that only one open
    workflow of the queue has; ``on_conflict`` says what a second start does (``attach`` answers with the first).
    ``debounce``: begin so long after the latest start of that ``dedup``, with its input; ``debounce_max``: but not
    longer than this after the first. ``expires``: closed as timed out if it is still in line by then.
    ``version``: run only on this version. ``attributes``: for searching. ``on_parent_close``: of a child, what its
    parent's end means. ``session``: start it in this transaction of yours (``.start`` only), so that it exists if that
    commits. Durations are timedeltas or seconds.
    """

    id: str
    on_conflict: Literal["attach", "fail", "replace"]
    version: str
    queue: Queue | str
    priority: int
    partition: str
    dedup: str
    debounce: Duration
    debounce_max: Duration
    expires: Duration
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
            case "timeout" | "debounce" | "debounce_max" | "expires":
                values[name] = to_us(value, name)
            case "attributes":
                values["attributes"] = _attributes(value)
            case "version" if value != "" and not is_version(value):
                raise DefinitionError(
                    f"version={show(value, 100)} is no version: give its text, 1 to {VERSION_MAX} printable characters"
                )
            case "priority" if type(value) is not int or abs(value) > PRIORITY_MAX:
                raise DefinitionError(f"priority={value!r} is no priority: give a whole number of 32 bits")
            case "queue":
                values[name] = check_queue(value.name if isinstance(value, Queue) else value)
            case "partition":
                values[name] = check_partition(value)
            case "dedup" if not value or not is_kept(value, KEY_BYTES_MAX):
                raise DefinitionError(
                    f"dedup={show(value, 100)} is no key: text of 1 to {KEY_BYTES_MAX} bytes, {NEEDED}, is needed; "
                    "give a hash of what is longer"
                )
            case _:
                values[name] = value
    return msgspec.structs.replace(base, **values)


def check_queued(name: str, options: StartOptions) -> None:
    """Raise ``DefinitionError`` for options that mean nothing as they stand."""
    given = {
        "partition": options.partition or None, "dedup": options.dedup, "debounce": options.debounce,
        "expires": options.expires,
    }  # fmt: skip
    for option, value in given.items():
        if value is not None and options.queue is None:
            raise DefinitionError(f"{option}= was given for {name!r}, which stands in no queue: give queue= as well")
    if options.debounce is not None and options.dedup is None:
        raise DefinitionError(
            f"debounce= was given for {name!r} without a key: give dedup= as well, such as a user's id"
        )
    if options.debounce is not None and options.on_conflict != "attach":
        raise DefinitionError(
            f"debounce= and on_conflict={options.on_conflict!r} were given for {name!r}: a debounced one that was not "
            "begun gets the new input, and one that was begun has lost the key, so there is no conflict to decide; "
            "give one of them"
        )
    if options.debounce is not None and (options.delay is not None or options.until is not None):
        raise DefinitionError(f"debounce= and delay= were given for {name!r}: each says when it begins; give one")
    if options.debounce_max is not None and options.debounce is None:
        raise DefinitionError(f"debounce_max= was given for {name!r} without debounce=")


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
    if not id or not is_kept(id, ID_BYTES_MAX):
        raise DefinitionError(
            f"workflow id {show(id, 100)} cannot be used: non-empty text of at most {ID_BYTES_MAX} bytes, {NEEDED}"
        )
    return str(id)
