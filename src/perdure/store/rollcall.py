"""Who is there and what they own: all that a round of recovery, routing and adoption asks first, in one question."""

from __future__ import annotations

import msgspec

from perdure.model.records import Incarnation


class RollCall(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot: whoever owns something in it and is not known in it has been forgotten, and is gone."""

    now: int  # the database's time, microseconds
    known: list[Incarnation]  # in the order in which they were launched
    owners: list[bytes]  # who owns running workflows, be it known or not
    strays: list[str]  # the versions of open workflows that nobody holds, sorted
    connected: frozenset[bytes] | None = None  # whose lease's connection the server has; None if it cannot be told
    session: int = 0  # tells the connection that asked from the one before it
