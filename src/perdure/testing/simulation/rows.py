"""Which rows a call to the app's database has to have for itself, and how long it waits for one that another has.

As with Postgres: a commit compares the claims of its units, inserts ids, and keys of messages; an order is about a
workflow. A claim passes what is kept, though Postgres' own skips it: the row is kept by one transaction after the
other, and a claim may come between two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from perdure.store.postgres.connection import SETTINGS, WRITING

LOCKED_SECONDS = int(WRITING["lock_timeout"]) / 1000  # for who writes
PATIENT_SECONDS = int(SETTINGS["lock_timeout"]) / 1000  # on the connection that claims; the users' own wait no less
_PATIENT = frozenset({"reclaim", "adopt_strays", "a statement"})

Ids = Iterable[str]


def _given(args: tuple[Any, ...]) -> Ids:
    return (args[0],)


def _one(args: tuple[Any, ...]) -> Ids:
    return (args[0].id,)


def _many(args: tuple[Any, ...]) -> Ids:
    return [one.id for one in args[0]]


def _batch(args: tuple[Any, ...]) -> Ids:
    for unit in args[0]:
        yield unit.key.id
        yield from (start.id for start in unit.children)
        yield from (send.dest for send in unit.sends if send.key is not None)


_NEEDED: dict[str, Callable[[tuple[Any, ...]], Ids]] = {
    "commit": _batch, "pause": _given, "cancel": _given, "terminate": _given, "wrote": _one, "replace": _one,
    "rewind": _one, "reopen": _one, "skip": _one, "fork": _one, "start_once": _one, "move": _many, "reset": _many,
    "reclaim": _many, "adopt_strays": _many,
}  # fmt: skip


def needed(op: str, args: tuple[Any, ...], kept: Collection[str]) -> frozenset[str]:
    """Those of the kept that a call needs."""
    ids = _NEEDED.get(op)
    return frozenset() if ids is None else frozenset(id for id in ids(args) if id in kept)


def patience_of(op: str) -> float:
    """Seconds that it waits for them."""
    return PATIENT_SECONDS if op in _PATIENT else LOCKED_SECONDS
