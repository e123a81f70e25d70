"""What runs have had of trouble: written with the unit that tells it, read for whoever looks."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from perdure.model.ids import RunKey
from perdure.model.problems import OF_HOLD, ProblemKind, ProblemRow
from perdure.model.states import Reason
from perdure.model.writes import Unit
from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def write(conn: Connection, app: str, units: Sequence[Unit], now: int) -> None:
    """What these units, which stand, say of problems."""
    for unit in units:
        trouble, (id, run) = unit.trouble, unit.key
        if trouble is None:
            continue
        if trouble.over:
            conn.execute(Q["problem_over"], (app, id, run, json.dumps(trouble.pending), unit.nonce, now))
        for one in trouble.told:
            conn.execute(Q["problem_put"], (
                app, id, run, str(one.kind), one.path, one.version, one.name, one.text, one.data, one.attempt, now,
                one.next, unit.nonce, one.kind in OF_HOLD.values(),
            ))  # fmt: skip
        conn.execute(Q["problem_mark"], (app, id, run, None if trouble.now is None else str(trouble.now)))


def given(conn: Connection, app: str, key: RunKey, path: str, now: int) -> None:
    """A person gave the step at ``path`` its outcome: that is no problem any more."""
    conn.execute(Q["problem_given"], (app, *key, path, now))
    conn.execute(Q["problem_left"], (app, *key))


def died(conn: Connection, app: str, id: str, owner: bytes, now: int) -> None:
    """Whoever ran it has died; the row says so already."""
    conn.execute(Q["problem_died"], (app, id, owner, now))


def turn(conn: Connection, app: str, key: RunKey, claim: bytes, text: str, nonce: bytes, now: int) -> bool:
    """The turn of a run takes too long; whether it is still that run's."""
    found = conn.execute(Q["problem_turn"], (app, *key, claim)).fetchall()
    for (version,) in found:
        kind = str(ProblemKind.TURN_TIMEOUT)
        given = (app, *key, kind, "", version, "", text, None, 0, now, None, nonce, False)
        conn.execute(Q["problem_put"], given)
    return bool(found)


def problems(conn: Connection, app: str, ids: Collection[str]) -> list[ProblemRow]:
    return [
        ProblemRow(
            id=r[0], run=r[1], kind=ProblemKind(r[2]), path=r[3], version=r[4], name=r[5], text=r[6], data=r[7],
            attempt=r[8], first=r[9], last=r[10], next=r[11], cleared=r[12],
        )
        for id in sorted(set(ids))
        for r in conn.execute(Q["problem_of"], (app, id)).fetchall()
    ]  # fmt: skip


def held_due(conn: Connection, app: str, reasons: Collection[Reason], version: str, since: int) -> int | None:
    found: int | None = conn.execute(Q["held_due"], (app, version, json.dumps(sorted(reasons)), since)).get
    return found
