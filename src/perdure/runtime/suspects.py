"""Suspects: runs that were in flight at deaths in a row and have got nowhere since. One at a time is at work here.

Whatever was taken over from the dead and only waits is put away as soon as it rests: see ``_let_rest``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perdure.client.line import Line
from perdure.model.records import Claimed, Incarnation
from perdure.runtime.eviction import evict_if_idle
from perdure.runtime.execution import Execution
from perdure.runtime.queues import Queues
from perdure.runtime.upgrades import Following
from perdure.runtime.wakes import Window
from perdure.store.asks import ClaimRequest

SUSPECT_DEATHS = 2  # in a row; as in the stores' SQL
LOOK_SECONDS = 0.02  # after its claim, and then each time twice as late: whether one from the dead only waits
LOOK_SECONDS_MAX = 2.0


class Suspects:
    """Those of one executor, so that a claim need not look through all that runs here."""

    def __init__(self) -> None:
        self._known: list[Execution] = []

    def saw(self, execution: Execution) -> None:
        """Something was claimed, and is about to run."""
        if execution.row.attempts >= SUSPECT_DEATHS:
            self._known.append(execution)
        if execution.row.attempts:
            _look_soon(execution, LOOK_SECONDS)

    def at_work(self) -> bool:
        """Whether the code of one of them runs, or is about to."""
        if self._known:
            self._known = [e for e in self._known if not (e.gone or e.run.observed)]
        return any(_may_kill(e) for e in self._known)


class Host(Protocol):
    """What a request needs of an executor."""

    line: Line
    me: Incarnation
    version: str
    following: Following
    suspects: Suspects
    queues: Queues
    window: Window


def request_of(host: Host, limit: int) -> ClaimRequest:
    """What an executor asks for: a suspect only if none is at work, what has no version only if it is to have that.

    And of queues no more than they let it have.
    """
    full, some = host.queues.let()
    return ClaimRequest(
        owner=host.me.id, token=host.line.new_token(), version=host.version, limit=limit, fresh=host.following.fresh,
        suspect=not host.suspects.at_work(), full=full, some=some, series=host.queues.series if full or some else None,
        after=host.window.after,
    )  # fmt: skip


def _look_soon(execution: Execution, seconds: float) -> None:
    execution.line.loop.call_later(seconds, _let_rest, execution, seconds)


def _let_rest(execution: Execution, waited: float) -> None:
    """One that was taken over from the dead and only waits leaves memory at once, not after the grace.

    What waits in its row has no part in a death. Else a process that dies each few seconds, for whatever reason, would
    have everything held in the end that it had in memory.
    """
    if execution.gone or execution.run.observed:
        return
    evict_if_idle(execution, execution.line.loop.time())
    if not execution.gone and waited < LOOK_SECONDS_MAX:
        _look_soon(execution, waited * 2)


def among(claimed: Sequence[Claimed]) -> bool:
    """Whether a suspect is among them: then there may be more, which were left for later."""
    return any(c.row.attempts >= SUSPECT_DEATHS for c in claimed)


def _may_kill(execution: Execution) -> bool:
    """Whether code of the user's runs, or is about to.

    One that only waits keeps no other from running, be it for an answer that no row can hold: a cancel, say, which
    whoever claims the other suspect has to answer.
    """
    return bool(
        execution.running
        or execution.in_flight
        or execution.unwritten
        or execution.run.replaying
        or not execution.run.asked
        or execution.at_work
    )
