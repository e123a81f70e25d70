"""Incarnations and their leases, by the time of the transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from perdure.model.records import Incarnation
from perdure.store.rollcall import RollCall
from perdure.store.sql import queries
from perdure.store.sqlite import claim, reads, strays
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def register(conn: Connection, app: str, who: Incarnation, lease: int, now: int) -> None:
    conn.execute(
        Q["incarnation_insert"],
        (
            who.id, app, who.executor, who.version, who.host, who.boot, who.space, who.pid, who.pid_started,
            who.state, now, lease,
        ),
    )  # fmt: skip


def heartbeat(conn: Connection, app: str, id: bytes, lease: int, lag: int, now: int) -> int | None:
    renewed = conn.execute(Q["incarnation_renew"], (id, app, now + lease, lag)).fetchall()
    return now if renewed else None


def roll_call(conn: Connection, app: str, now: int) -> RollCall:
    return RollCall(
        now=now, known=reads.incarnations(conn, app), owners=claim.owners(conn, app), strays=strays.versions(conn, app)
    )


def bury(
    conn: Connection,
    app: str,
    ids: Collection[bytes],
    now: int,
    *,
    expired_only: bool,
    beats: Mapping[bytes, int] | None,
) -> list[bytes]:
    until = now if expired_only else None
    each = [(id, app, until, None if beats is None else beats.get(id, -1)) for id in sorted(set(ids))]
    return [row[0] for row in conn.executemany(Q["incarnation_bury"], each)]


def new_series(conn: Connection, app: str, id: bytes, series: int) -> None:
    conn.execute(Q["incarnation_series"], (app, id, series))


def drain(conn: Connection, app: str, id: bytes) -> None:
    conn.execute(Q["incarnation_drain"], (id, app))


def hand_over(conn: Connection, app: str, ids: Collection[bytes], heir: str | None) -> list[str]:
    over = [row[0] for id in sorted(set(ids)) for row in conn.execute(Q["incarnation_release"], (id, app, heir))]
    return sorted(id for owner in over for id, _run, _claim in conn.execute(Q["workflow_owned"], (app, owner)))


def leave(conn: Connection, app: str, id: bytes) -> None:
    conn.execute(Q["incarnation_leave"], (id, app))
    forget(conn, app)


def forget(conn: Connection, app: str) -> None:
    conn.execute(Q["incarnation_forget"], (app,))
