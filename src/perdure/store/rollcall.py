"""Who is there and what they own: all that a round of recovery, routing and adoption asks first, in one question."""

from __future__ import annotations

import msgspec

from perdure.model.records import Incarnation

FORGOTTEN = "forgotten"  # the state, and the name, of an owner that no row tells of


class RollCall(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot: whoever owns something in it and is not known in it has been forgotten, and is gone."""

    now: int  # the database's time, microseconds
    known: list[Incarnation]  # in the order in which they were launched
    owners: list[bytes]  # who owns running workflows, be it known or not
    strays: list[str]  # the versions of open workflows that nobody holds, sorted
    connected: frozenset[bytes] | None = None  # whose lease's connection the server has; None if it cannot be told
    session: int = 0  # tells the connection that asked from the one before it

    @property
    def forgotten(self) -> list[Incarnation]:
        """Owners that are not known, as people see them: they are gone, and what they were called is lost."""
        known = {who.id for who in self.known}
        return [Incarnation(id=id, executor=FORGOTTEN, state=FORGOTTEN) for id in self.owners if id not in known]
