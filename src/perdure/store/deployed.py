"""Rows of versions, and of changes of a deployment, the same in both dialects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.model.deployments import KINDS, LAUNCH, Change, OpenWork, Order, UnsetRamping
from perdure.model.versions import Routing, Version, Watch
from perdure.versions.deployments import Seen

BOUND = 100_000  # counted of what a deletion strands
REPEATED = 50  # so many changes back a repeated order looks for its first try
_fingerprints = msgspec.json.Decoder(dict[str, str])
_watch = msgspec.json.Decoder(Watch)
_json = msgspec.json.Encoder(order="sorted")


def version(row: Sequence[Any]) -> Version:
    """A version as it is stored."""
    return Version(
        name=row[0], fingerprints=_fingerprints.decode(row[1]), first_launched=row[2], launched=row[3],
        withdrawn=bool(row[4]), since=row[5], routed=bool(row[6]), metadata=row[7].encode(), deleted=row[8],
    )  # fmt: skip


def change(row: Sequence[Any]) -> Change:
    """A change as it is stored."""
    return Change(
        revision=row[0], at=row[1], kind=row[2], version=row[3], by=row[4], reason=row[5], current=row[6],
        ramping=row[7], percentage=row[8],
    )  # fmt: skip


def routing(row: Sequence[Any]) -> Routing:
    """Where new work goes, as it is stored."""
    return Routing(
        current=row[0], ramping=row[1], percentage=row[2], revision=row[3], changed=row[4], because=row[5],
        watch=None if row[6] is None else _watch.decode(row[6]),
    )  # fmt: skip


def seen(
    now: int,
    routing: Routing | None,
    found: Sequence[Any] | None,
    executors: Sequence[tuple[str, str]],
    open: Sequence[OpenWork],
    current: Sequence[Any] | None,
) -> Seen:
    """What an order is ruled on. ``executors``: label and state of each that runs the version. ``current``: its row."""
    return Seen(
        now=now, routing=routing, version=None if found is None else version(found),
        alive=tuple(label for label, state in executors if state == "alive"),
        draining=tuple(label for label, state in executors if state != "alive"), open=tuple(open),
        workflows=() if current is None else tuple(version(current).fingerprints),
    )  # fmt: skip


def watch_text(routing: Routing) -> str | None:
    """A watch as it is stored."""
    return None if routing.watch is None else _json.encode(routing.watch).decode()


def by_order(order: Order, before: Routing, after: Routing, at: int) -> tuple[Any, ...]:
    """What is noted of a change that a person made, in the order of the columns after ``app``."""
    return (
        after.revision, at, KINDS[type(order.verb)], named(order, before), order.by, order.reason, after.current,
        after.ramping, after.percentage, order.nonce,
    )  # fmt: skip


def by_launch(version: str, after: Routing) -> tuple[Any, ...]:
    """What is noted of a change that a launch of ``version`` made."""
    return (
        after.revision, after.changed, LAUNCH, version, "", after.because, after.current, after.ramping,
        after.percentage, None,
    )  # fmt: skip


def named(order: Order, routing: Routing | None) -> str:
    """The version that an order is about; that of the ramp which is to end, "" if there is none."""
    if isinstance(order.verb, UnsetRamping):
        return "" if routing is None else routing.ramping or ""
    return order.verb.version
