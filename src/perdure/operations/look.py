"""What operations look at first: the row, who serves its version, who asks."""

from __future__ import annotations

import getpass
import os
import socket

import msgspec

from perdure.errors import WorkflowNotFound, WorkflowRefused
from perdure.model.info import to_datetime
from perdure.model.orders import Answer, Answered
from perdure.model.records import Incarnation, Record, WorkflowRow
from perdure.store.base import Store


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants it, and why: kept in the history."""

    by: str
    reason: str = ""


class Served(msgspec.Struct, frozen=True):
    """The versions that live executors of the app run, at a moment of the database's clock."""

    now: int
    versions: frozenset[str]

    def strands(self, row: WorkflowRow) -> bool:
        """Whether a workflow is of a version that nobody runs, while others are there who run another.

        With nobody there at all it may be that its version is launched next.
        """
        return bool(row.version and self.versions and row.version not in self.versions)


def who() -> str:
    """The person at this process, as far as the system tells: ``ann@build-7``."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in many containers
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def not_found(id: str, app: str) -> WorkflowNotFound:
    return WorkflowNotFound(f"app {app!r} has no workflow {id!r}; see: perdure workflow list")


async def gone(store: Store, id: str) -> WorkflowNotFound:
    """Why no workflow has the id: the words of who deleted it, if a policy did."""
    told = [decision for decision in await store.decisions([id]) if decision.decision == "delete"]
    if not told:
        return not_found(id, store.app)
    last = max(told, key=lambda decision: decision.at)
    because = f": {last.because}" if last.because else ""
    return WorkflowNotFound(
        f"workflow {id!r} was deleted at {to_datetime(last.at).isoformat(timespec='seconds')} by policy "
        f"{last.policy}{because}; it has no result, and nothing more will come of it"
    )


async def settled(store: Store, answered: Answered) -> Answered:
    """The answer, if it is one. Raises ``WorkflowNotFound``, ``WorkflowRefused``."""
    if answered.answer is Answer.UNKNOWN:
        raise await gone(store, answered.id)
    if answered.answer is Answer.REFUSED:
        raise WorkflowRefused(f"workflow {answered.id!r}: {answered.words}")
    return answered


async def row_of(store: Store, id: str) -> WorkflowRow:
    """The latest run. Raises ``WorkflowNotFound``."""
    row = (await store.rows([id])).get(id)
    if row is None:
        raise await gone(store, id)
    return row


async def history_of(store: Store, row: WorkflowRow) -> list[Record]:
    return (await store.histories([row.key]))[row.key]


async def served(store: Store) -> Served:
    """Who is there now."""
    now = (await store.poll(None, None)).now
    return Served(now, frozenset(who.version for who in await store.incarnations() if _serves(who, now)))


def _serves(who: Incarnation, now: int) -> bool:
    return who.state == "alive" and who.leased(now)
