"""What this store writes within a transaction of a session of its users' own: the very commit, on their connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perdure.model.ids import RunKey
from perdure.model.records import WorkflowRow
from perdure.model.writes import Start, Unit, Verdict
from perdure.store.lines import Deduplicated
from perdure.store.sql import queries
from perdure.store.sqlite.commit import commit
from perdure.store.sqlite.connection import PATIENCE
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.file import turn_path
from perdure.store.sqlite.queues import start_once
from perdure.store.sqlite.turn import Turn
from perdure.store.within import Job, Within

Q = queries("perdure.store.sqlite")


def within(app: str, unit: Unit, now: int) -> Within[Verdict]:
    """The unit, in the write transaction that the connection is in."""

    def write(conn: Connection) -> Verdict:
        return commit(conn, app, [unit], now).verdicts[0]

    verdict: Verdict = yield Job(write)
    return verdict


def once(app: str, start: Start, how: Deduplicated, now: int) -> Within[WorkflowRow | None]:
    """A start that has a deduplication key, in that transaction."""

    def write(conn: Connection) -> WorkflowRow | None:
        return start_once(conn, app, start, how, now)

    row: WorkflowRow | None = yield Job(write)
    return row


def wrote(conn: Connection, app: str, key: RunKey, seq: int, nonce: bytes) -> bool:
    """Whether a transaction whose answer was lost has committed this record. Asked in one that writes: it is over."""
    around = conn.execute(Q["history_around"], (app, key.id, key.run, seq))
    return any(found == seq and by == nonce for _, found, by in around)


def turn(path: Path) -> Callable[[], None]:
    """Take the turn to write, as the writer thread does; what gives it back. Blocks."""
    mine = Turn(turn_path(path))
    try:
        mine.take(PATIENCE)
    except BaseException:
        mine.close()
        raise
    return mine.close
