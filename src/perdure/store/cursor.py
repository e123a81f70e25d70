"""Where a page of a listing ended: a place in its order, as a text that is handed back for the next page.

Promise: a text that was not given out for the same order is refused, never read as another place.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from perdure.errors import ConfigError
from perdure.query.conditions import Kind, Order

INT_MAX = 2**63 - 1


class Place(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page, and the time of the first one: durations and ``now`` must not move between pages."""

    by: str  # the order
    value: int | str | None  # what the row has there
    id: str
    run: int
    now: int


def cursor_of(order: Order, value: int | str | None, id: str, run: int, now: int) -> str:
    """The text for a place."""
    place = Place(_name(order), value, id, run, now)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_cursor(text: str, order: Order) -> Place:
    """The place of a text. Raises ``ConfigError``."""
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Place)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise ConfigError(f"{text!r} is no cursor; give one that a page of this listing ended with") from None
    if place.by != _name(order):
        raise ConfigError(f"the cursor {text!r} is of a list by {place.by}, not by {_name(order)}; begin without one")
    fits = isinstance(place.value, str if order.fact.kind is Kind.TEXT else int)
    if not fits and (place.value is not None or order.fact.always):
        raise ConfigError(f"{text!r} is no cursor of a list by {place.by}")
    if any(abs(n) > INT_MAX for n in (place.value, place.run, place.now) if isinstance(n, int)):
        raise ConfigError(f"{text!r} is no cursor of a list by {place.by}")
    return place


def _name(order: Order) -> str:
    return f"{order.fact} {'desc' if order.descending else 'asc'}"
