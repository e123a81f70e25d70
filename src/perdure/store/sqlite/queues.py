"""Queues: their rows, and what is let through their lines. Whoever writes to a SQLite file writes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from perdure.model import queues as model
from perdure.model.ids import RunKey
from perdure.model.queues import LIMITS, Limits, QueueChange, QueueCount, QueueRow
from perdure.model.records import Claimed, WorkflowRow
from perdure.model.states import CODE, FIRST_CLOSED, VERSIONING, Status
from perdure.model.writes import Start, Unit
from perdure.store.asks import ClaimRequest
from perdure.store.lines import (
    HOPS,
    PRUNED,
    Dealer,
    Declared,
    Deduplicated,
    LineClaim,
    LineRequest,
    Used,
    prolongable,
)
from perdure.store.sql import queries
from perdure.store.sqlite import commands
from perdure.store.sqlite.claim import still_counts, take
from perdure.store.sqlite.commit import commit
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")
_json = msgspec.json.Encoder(order="sorted")
_limits = msgspec.json.Decoder(Limits)
_live = msgspec.json.Decoder(dict[str, Any])


# -- rows


def listing(conn: Connection, app: str) -> list[QueueRow]:
    return [_row(r) for r in conn.execute(Q["queue_list"], (app,))]


def declare(conn: Connection, app: str, code: Mapping[str, Limits], now: int, *, over: bool) -> None:
    """Note what the code declares. Queues that it declares as before are not touched."""
    known = {row.name: row.declared for row in listing(conn, app)}
    for name, limits in sorted(code.items()):
        before = known.get(name)
        if before is None or (over and before != limits):
            row = _known(conn, app, name, now)
            _put(conn, app, row, model.declared(row, limits), now)


def make(conn: Connection, app: str, names: Collection[str], now: int) -> None:
    for name in sorted(names):
        conn.execute(Q["queue_make"], (app, name, now))


def change(conn: Connection, app: str, name: str, order: QueueChange, now: int) -> QueueRow:
    row = _known(conn, app, name, now)
    after = model.changed(row, order)
    _put(conn, app, row, after, now)
    return after


def _known(conn: Connection, app: str, name: str, now: int) -> QueueRow:
    """The queue, made if need be."""
    conn.execute(Q["queue_make"], (app, name, now))
    row = _get(conn, app, name)
    assert row is not None, "it was just made"
    return row


def _get(conn: Connection, app: str, name: str) -> QueueRow | None:
    found = conn.execute(Q["queue_get"], (app, name)).fetchone()
    return None if found is None else _row(found)


def _put(conn: Connection, app: str, before: QueueRow, after: QueueRow, now: int) -> None:
    if after == before:
        return
    declared = None if after.declared is None else _json.encode(after.declared).decode()
    limits = [getattr(after.limits, name) for name in LIMITS]
    conn.execute(
        Q["queue_put"],
        (app, after.name, *limits, int(after.paused), declared, _json.encode(after.live).decode(), now),
    )
    if after.limits.counted and not before.limits.counted:
        conn.execute(Q["slot_fill"], (app, after.name))


def counts(conn: Connection, app: str, bound: int) -> dict[str, QueueCount]:
    found: dict[str, QueueCount] = {}
    for name, late, n, oldest in conn.execute(Q["queue_waiting"], (app, bound)):
        count = found.get(name, QueueCount())
        found[name] = (
            msgspec.structs.replace(count, delayed=n)
            if late
            else msgspec.structs.replace(count, in_line=n, oldest=oldest)
        )
    for name, n in conn.execute(Q["queue_progress"], (app, bound)):
        found[name] = msgspec.structs.replace(found.get(name, QueueCount()), in_progress=n)
    return found


# -- the line


def claim(conn: Connection, app: str, want: LineRequest, now: int) -> LineClaim:
    row = _get(conn, app, want.queue)
    if row is None or row.paused or not (want.limited or row.limits == Limits()):
        return LineClaim()
    dealer = Dealer(row.limits, _used(conn, app, row, now), want.limit, want.mine)
    if not dealer.room:
        return LineClaim(again=dealer.again)
    if not (want.partitioned or row.limits.counted or row.limits.paced):
        found = _take(conn, app, want, row.limits, {model.line(want.queue): dealer.room}, now)
        return LineClaim(claimed=found, more=len(found) == want.limit)
    partitions = _partitions(conn, app, want, row.cursor) if want.partitioned else [""]
    claimed: list[Claimed] = []
    left = partitions
    while left and (quotas := dealer.deal(left)):
        bounds = {model.part(want.queue, partition): quota for partition, quota in quotas.items()}
        got = _take(conn, app, want, row.limits, bounds, now)
        claimed += got
        each = Counter(one.row.partition for one in got)
        for partition, n in each.items():
            dealer.gave(partition, n)
        left = [partition for partition in left if each[partition] == quotas.get(partition, -1)]
    many = len(partitions) == HOPS
    if want.partitioned and partitions:
        cursor = partitions[-1] if not claimed else dealer.last
        if cursor != row.cursor:
            conn.execute(Q["queue_cursor"], (app, row.name, cursor))
    return LineClaim(claimed=claimed, again=dealer.again, more=len(claimed) == want.limit or (many and not claimed))


def _used(conn: Connection, app: str, row: QueueRow, now: int) -> Used:
    live: dict[str, int] = {}
    starts: list[tuple[str, int, int]] = []
    if row.limits.counted:
        conn.execute(Q["slot_prune"], (app, row.name))
        live = dict(conn.execute(Q["slot_live"], (app, row.name)).fetchall())
    if row.limits.paced:
        conn.execute(Q["pace_prune"], (app, row.name, now - row.limits.window))
        starts = conn.execute(Q["pace_since"], (app, row.name, now - row.limits.window)).fetchall()
    return Used(now, live, starts)


def _partitions(conn: Connection, app: str, want: LineRequest, cursor: str) -> list[str]:
    """Those that stand in line: first those after the one that was served last, then from the beginning."""
    low, high = model.line(want.queue)
    beyond = model.part(want.queue, cursor)[1]
    found = _hop(conn, app, want, beyond, high, HOPS)
    return found + _hop(conn, app, want, low, beyond, HOPS - len(found))


def _hop(conn: Connection, app: str, want: LineRequest, low: str, high: str, limit: int) -> list[str]:
    found: list[str] = []
    while len(found) < limit and (lane := next_lane(conn, app, want.versions, low, high)) is not None:
        found.append(model.partition_of(lane))
        low = model.part(want.queue, found[-1])[1]
    return found


def next_lane(conn: Connection, app: str, versions: Collection[str], low: str, high: str) -> str | None:
    """The first lane between the bounds, of what is of ``versions``."""
    found = [conn.execute(Q["lane_next"], (app, of, low, high)).get for of in versions]
    return min((lane for lane in found if lane is not None), default=None)


def lines(conn: Connection, app: str, versions: Collection[str]) -> list[tuple[str, str]]:
    """The first and the last lane of each queue whose line is not empty."""
    found: list[tuple[str, str]] = []
    low = model.FIRST
    while (lane := next_lane(conn, app, versions, low, "\U0010ffff")) is not None:
        low = model.line(model.queue_of(lane))[1]
        lasts = [conn.execute(Q["lane_last"], (app, of, lane, low)).get for of in versions]
        found.append((lane, max(last for last in lasts if last is not None)))
    return found


def due(conn: Connection, app: str, versions: Collection[str]) -> int | None:
    """When something is to be lined up, or has been in line for too long."""
    times = [conn.execute(Q["delayed_next"], (app, of)).get for of in versions]
    times.append(conn.execute(Q["expiry_next"], (app,)).get)
    return min((at for at in times if at is not None), default=None)


def _take(
    conn: Connection, app: str, want: LineRequest, limits: Limits, quotas: Mapping[tuple[str, str], int], now: int
) -> list[Claimed]:
    """So many from between each pair of lanes, one each in turn."""
    picked: list[tuple[int, int, str]] = []
    if not still_counts(conn, want.owner, want.series):
        return []
    for nth, ((low, high), quota) in enumerate(quotas.items()):
        items = [
            item
            for version in want.versions
            for item in conn.execute(Q["lane_items"], (app, version, low, high, quota, now))
        ]
        picked += [(place, nth, item[2]) for place, item in enumerate(sorted(items)[:quota])]
    ids = [id for _, _, id in sorted(picked)]
    claimed = take(
        conn, app, ids, ClaimRequest(owner=want.owner, token=want.token, version=want.version, limit=want.limit), now
    )
    if limits.counted:
        conn.executemany(Q["slot_insert"], [(app, want.queue, id) for id in ids])
    if limits.paced:
        each = Counter(one.row.partition for one in claimed)
        conn.executemany(Q["pace_add"], [(app, want.queue, partition, now, n) for partition, n in each.items()])
    return claimed


def line_up(conn: Connection, app: str, versions: Collection[str], limit: int, now: int) -> list[str]:
    due = [item for of in sorted(versions) for item in conn.execute(Q["delayed_due"], (app, of, now, limit)).fetchall()]
    for id, _ in due:
        conn.execute(Q["line_up"], (app, id, now))
    return sorted({queue for _, queue in due})


def line_up_declared(conn: Connection, app: str, found: Collection[Declared], claim: bytes, now: int) -> list[str]:
    each = [
        (app, one.id, claim, one.queue, VERSIONING[one.versioning], one.since, int(one.versioned), now)
        for one in sorted(found, key=lambda one: one.id)
    ]
    return [id for (id,) in conn.executemany(Q["line_up_declared"], each)]


def expire(conn: Connection, app: str, limit: int, nonce: bytes, now: int) -> list[str]:
    """Close those that have been in line for too long; their ids."""
    ended: list[str] = []
    for at, id in conn.execute(Q["expiry_due"], (app, now, limit)).fetchall():
        row = commands.get(conn, app, id)
        if row is not None and row.lane is not None and row.expires is not None and row.expires <= now:
            commands.end(conn, app, row, (CODE[Status.TIMED_OUT], row.claim, row.cancel, expired(row), now), nonce)
            ended.append(id)
        conn.execute(Q["expiry_done"], (app, at, id))
    return sorted(ended)


def expired(row: WorkflowRow) -> str:
    """In words."""
    return f"it stood in line of queue {row.queue} for longer than it may, and was never begun"


# -- deduplication


def start_once(conn: Connection, app: str, start: Start, how: Deduplicated, now: int) -> WorkflowRow | None:
    """Begin a workflow unless its key is another's; None if that is done, now or before, else who has the key or id."""
    assert start.queue is not None, "a deduplication key is a queue's"
    head = conn.execute(Q["workflow_head"], (app, start.id)).fetchone()
    if head is not None and head[4] == start.nonce:
        return None
    follows = head is not None and how.over is not None and how.over.run == head[1] and head[2] >= FIRST_CLOSED
    holder = conn.execute(Q["dedup_get"], (app, start.queue, how.key)).get
    if head is not None and not follows and (holder != start.id or how.over is not None):
        late = how.over is not None and commands.followed(conn, app, how.over, start, head)
        return None if late else commands.get(conn, app, start.id)
    row = None if holder is None else commands.get(conn, app, holder)
    if row is not None and row.status.open and row.queue == start.queue:
        if how.debounce is None or row.name != start.name:
            return row
        if prolongable(row, start.name):
            return _debounce(conn, app, start, how, row, now)
    if head is not None and not follows:
        return row
    if follows:
        assert how.over is not None, "it is what is followed"
        commands.replace(conn, app, how.over, start, start.nonce, now)
    else:
        commit(conn, app, [Unit(key=RunKey("", 0), children=[start])], now)
        commands.tell_if_late(conn, app, start)
    conn.execute(Q["dedup_put"], (app, start.queue, how.key, start.id))
    conn.execute(Q["dedup_prune"], (app, start.queue, how.key, PRUNED))
    return None


def _debounce(conn: Connection, app: str, start: Start, how: Deduplicated, row: WorkflowRow, now: int) -> WorkflowRow:
    """Let the one that has the key, and was not begun, wait from now on, with the new input."""
    until = how.until(now, row.created)
    conn.execute(Q["debounce"], (app, row.id, until, start.fingerprint, now, start.nonce))
    conn.execute(Q["debounce_input"], (app, row.id, row.run, start.input))
    found = commands.get(conn, app, row.id)
    assert found is not None, "it was just changed"
    if found.expires is not None:
        conn.execute(Q["expiry_insert"], (app, found.expires, row.id))
    return found


def _row(r: Any) -> QueueRow:
    return QueueRow(
        name=r[0], limits=Limits(**dict(zip(LIMITS, r[1:8], strict=True))), paused=bool(r[8]), cursor=r[9],
        declared=None if r[10] is None else _limits.decode(r[10]), live=_live.decode(r[11]), changed=r[12],
        revision=r[13],
    )  # fmt: skip
