"""A batch of units in one transaction.

Three passes, so that a batch means the same whatever the order of its units, and what Postgres says of the same batch:

1. *judge*: every unit against the rows as they were when the batch began (fences, own starts, children), in order;
2. *address*: every message of an applied unit against rows as they were, plus the starts of this batch;
3. *write*: inserts first, then each workflow's one change, then the wakes that the changes cause.

Promises: a refused unit writes nothing; a unit that was written before is recognised (a record's nonce, a start's
nonce, a message's id, a state already reached) and written no second time; no statement runs for what is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from perdure.model.records import WorkflowRow
from perdure.model.states import CODE, CODES, FIRST_CLOSED, VERSIONING, Reason, Status
from perdure.model.writes import (
    Change,
    Close,
    Continue,
    Delete,
    Hold,
    Onward,
    Park,
    Receipt,
    Release,
    Rewind,
    Send,
    Start,
    Unit,
    Verdict,
)
from perdure.store.sql import queries
from perdure.store.sqlite import decisions, problems, rows, streams
from perdure.store.sqlite.driver import Bindings, Connection, Row
from perdure.store.sqlite.next import begin_next, placed, rewind, stand

Q = queries("perdure.store.sqlite")
SCHEDULED, QUEUED, RUNNING, WAITING, HELD = (
    CODE[s] for s in (Status.SCHEDULED, Status.QUEUED, Status.RUNNING, Status.WAITING, Status.HELD)
)
FEW = 6  # keys up to which a statement for each is faster than one for all
CONTINUED = CODE[Status.CONTINUED]


def hears(status: int) -> bool:
    """Whether a wake means anything to a workflow: those not yet claimed look at everything when they are."""
    return status in (RUNNING, WAITING, HELD)


class Head(msgspec.Struct, gc=False):
    """What a batch knows of a workflow row, and what it will be after the batch."""

    run: int
    status: int
    claim: bytes | None
    nonce: bytes
    parent: str | None


def commit(conn: Connection, app: str, units: Sequence[Unit], now: int) -> Receipt:
    """Write ``units``; to be called within a write transaction."""
    return _Batch(conn, app, units, now).commit()


class _Batch:
    """One call of ``commit``: the rows as seen, and the statements to run, gathered by kind."""

    def __init__(self, conn: Connection, app: str, units: Sequence[Unit], now: int) -> None:
        self.conn = conn
        self.app = app
        self.units = units
        self.now = now
        self.heads: dict[str, Head] = {}
        self.lasts: dict[str, tuple[int, bytes]] = {}  # of runs that write records: the last seq up to theirs, its unit
        self.verdicts: list[Verdict] = []
        self.fresh: list[bool] = []  # applied now, and not by a first try of the same unit
        self.taken_ids: list[tuple[Verdict, str]] = []
        self.inserts: list[Bindings] = []
        self.inputs: list[Bindings] = []
        self.records: list[Bindings] = []
        self.mail: list[Bindings] = []
        self.wakes: list[Bindings] = []
        self.expiries: list[Bindings] = []
        self.forgotten: dict[str, bytes] = {}  # by whose unit: to be deleted when all else of the batch is done

    def commit(self) -> Receipt:
        self._look()
        for unit in self.units:
            verdict, fresh = self._judge(unit)
            self.verdicts.append(verdict)
            self.fresh.append(fresh)
        self._many("workflow_insert", self.inserts)
        self._many("payload_insert", self.inputs)
        self._many("expiry_insert", self.expiries)
        for unit, verdict, fresh in zip(self.units, self.verdicts, self.fresh, strict=True):
            if unit.sends and verdict.applied:
                self._address(unit, verdict, sure=fresh and bool(unit.start or unit.records))
        self._many("message_insert", self.mail)
        self._write([unit for unit, fresh in zip(self.units, self.fresh, strict=True) if fresh])
        for verdict, id in self.taken_ids:
            verdict.exists[id] = self._row(id)
        for id, nonce in self.forgotten.items():
            decisions.forget(self.conn, self.app, id, nonce)
        return Receipt(self.now, self.verdicts)

    # -- helpers

    def _many(self, query: str, bindings: Iterable[Bindings]) -> None:
        if bindings:
            for _ in self.conn.executemany(Q[query], bindings):
                pass

    def _look(self) -> None:
        """Read the heads of every workflow that the batch names."""
        ids: dict[str, None] = {}
        firsts: list[tuple[str, int, int]] = []
        for unit in self.units:
            if unit.start is not None:
                ids[unit.key.id] = None
            elif unit.claim is not None:
                ids[unit.key.id] = None
                if unit.records:
                    firsts.append((unit.key.id, unit.key.run, unit.records[0].seq))
            for child in unit.children:
                ids[child.id] = None
            for send in unit.sends:
                ids[send.dest] = None
            for told in unit.given_up:
                ids[told.child] = None
            change = unit.change
            if isinstance(change, Close):
                if change.parent is not None:
                    ids[change.parent] = None
                ids.update(dict.fromkeys(change.children))
            elif isinstance(change, Park):
                ids.update(dict.fromkeys(change.watching))
        for id, *rest in self._read("workflow_head", [(id,) for id in ids], list(ids)):
            self.heads[id] = Head(*rest)
        for id, seq, nonce in self._read("history_around", firsts, firsts):
            self.lasts[id] = max((seq, nonce), self.lasts.get(id, (0, b"")))

    def _read(self, query: str, keys: Sequence[Bindings], packed: list[Any]) -> Iterable[Row]:
        """Rows of ``keys``: a few one by one, many by the query of the same name in the plural."""
        if len(keys) < FEW:
            return self.conn.executemany(Q[query], [(self.app, *key) for key in keys])
        return self.conn.execute(Q[query + "s"], (self.app, rows.pack(packed)))

    # -- first pass: which units stand

    def _judge(self, unit: Unit) -> tuple[Verdict, bool]:
        """The verdict, and whether the unit is to be written (else it was refused, or written before)."""
        verdict = Verdict(applied=True)
        fresh = True
        if self._has_continued(unit):
            verdict.applied, fresh = self._judge_continued(unit), False
        elif unit.start is not None:
            verdict.applied, fresh = self._judge_start(unit.start)
            if not verdict.applied:
                self.taken_ids.append((verdict, unit.start.id))
            elif fresh:
                self._start(unit.start, unit.records[-1].seq if unit.records else 0)
        elif unit.claim is not None:
            verdict.applied, fresh = self._judge_claim(unit)
        if verdict.applied:
            for child in unit.children:
                head = self.heads.get(child.id)
                if head is None:
                    self._start(child, 0)
                elif not self._mine(child, head):
                    self.taken_ids.append((verdict, child.id))
        return verdict, fresh

    def _judge_start(self, start: Start) -> tuple[bool, bool]:
        head = self.heads.get(start.id)
        if head is None:
            return True, True
        if not self._mine(start, head):
            return False, False
        # Mine, from a first try. If I wanted to hold it and another does by now, the run is no longer mine to go on.
        return start.claim is None or (head.claim == start.claim and head.run == start.run), False

    def _judge_claim(self, unit: Unit) -> tuple[bool, bool]:
        head = self.heads.get(unit.key.id)
        if head is None or head.run != unit.key.run or head.claim != unit.claim:
            gone = isinstance(unit.change, Delete) and decisions.deleted(self.conn, self.app, unit.key, unit.claim)
            return gone, False  # or deleted by a first try
        return self._judge_records(unit) if unit.records else (True, True)

    def _has_continued(self, unit: Unit) -> bool:
        """Whether a first try of this unit has begun the next run."""
        head = self.heads.get(unit.key.id)
        if head is None or not isinstance(unit.change, Onward):
            return False
        return head.run == unit.change.next.run and head.nonce == unit.change.next.nonce

    def _judge_continued(self, unit: Unit) -> bool:
        """A unit that has continued its run by a first try stands unless another holds the next."""
        assert isinstance(unit.change, Onward)
        return unit.change.next.claim in (None, self.heads[unit.key.id].claim)

    def _judge_records(self, unit: Unit) -> tuple[bool, bool]:
        """Whether the records come next; if not, this unit wrote them before, or they must not be written."""
        id, first = unit.key.id, unit.records[0].seq
        seq, nonce = self.lasts.get(id, (0, b""))
        if seq < first:
            return seq == first - 1, seq == first - 1
        return nonce == unit.nonce, False

    def _mine(self, start: Start, head: Head) -> bool:
        """Whether a start found its own row from a first try, be it continued since."""
        if head.run > start.run:
            return past_nonce(self.conn, self.app, start.id, start.run) == start.nonce
        return head.nonce == start.nonce

    def _start(self, start: Start, last_seq: int) -> None:
        """Queue the insert of a workflow, and let the rest of the batch see it."""
        at = placed(start, self.now)
        self.heads[start.id] = Head(start.run, CODE[start.status], start.claim, start.nonce, start.parent)
        self.inserts.append((
            self.app, start.id, start.run, start.lineage, start.name, start.version, CODE[start.status], start.claim,
            start.owner, at.epoch, last_seq, at.until, start.timeout, at.deadline, self.now, at.started, start.parent,
            start.parent_run, start.parent_path, start.on_parent_close, start.queue, start.priority, start.fingerprint,
            start.attributes, rows.pack_intents(start.intents), start.nonce, VERSIONING[start.versioning],
            start.partition, start.lane, at.expires,
        ))  # fmt: skip
        self.inputs.append((self.app, start.id, start.run, start.input))
        if at.expires is not None:
            self.expiries.append((self.app, at.expires, start.id))

    def _row(self, id: str) -> WorkflowRow:
        row = self.conn.execute(Q["workflow_get"], (self.app, id)).fetchone()
        assert row is not None, "its head was read in this transaction"
        return rows.workflow(row)

    # -- second pass: where messages go

    def _address(self, unit: Unit, verdict: Verdict, *, sure: bool) -> None:
        """Queue the unit's messages. ``sure``: this is no repeat, so none can be there already by its id."""
        for send in unit.sends:
            head = self.heads.get(send.dest)
            if not send.known and (head is None or head.status >= FIRST_CLOSED):
                # Unless a first try delivered it, before the end of the workflow that it was for.
                if not self._delivered(send):
                    verdict.undelivered[send.mid] = None if head is None else CODES[head.status]
                continue
            row = (self.app, send.dest, send.mid, send.topic, send.data, send.sender, self.now, send.key)
            if sure and send.key is None:
                self.mail.append(row)
            elif not self.conn.execute(Q["message_insert"], row).fetchall():
                continue  # there before, and so was its wake
            if head is None or hears(head.status):
                self.wakes.append((self.app, send.dest, send.wake, None))

    def _delivered(self, send: Send) -> bool:
        bindings = (self.app, send.dest, send.mid, send.key)
        return self.conn.execute(Q["message_known"], bindings).get is not None

    # -- third pass: write

    def _write(self, units: list[Unit]) -> None:
        """Everything but starts and messages, of the units that are fresh."""
        app, now = self.app, self.now
        taken: list[Bindings] = []
        events: list[Bindings] = []
        setters: list[Bindings] = []
        changed: list[tuple[Unit, Change]] = []
        told: list[str] = []
        for unit in units:
            if unit.claim is None and unit.start is None:
                continue  # a caller outside has no row of its own, only children and messages
            id, run = unit.key
            for r in unit.records:
                self.records.append((
                    app, id, run, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint, r.outcome.value, r.data,
                    r.attempt, r.shown, rows.pack_intents(r.intents), unit.version, unit.nonce,
                ))  # fmt: skip
            if unit.taken:
                taken.extend((app, id, mid, run, seq) for mid, seq in unit.taken)
            if unit.events:
                latest = {event.name: event.data for event in unit.events}
                events.extend((app, id, run, name, data, now) for name, data in latest.items())
            if unit.appends and streams.append(self.conn, app, unit, now):
                told.append(id)
            # Those that end wake the watchers anyway.
            if (unit.events or unit.appends) and not isinstance(unit.change, Close | Onward):
                setters.append((app, id, unit.nonce))
            if unit.woken:
                self._woken(id, unit.woken)
            for given_up in unit.given_up:
                self._cancel_child(id, given_up.child, given_up.wake, given_up.reason)
            if unit.decision is not None:
                decisions.put(self.conn, app, unit.key, unit.claim, unit.decision, now)
            if unit.change is not None and _moves(self.heads[id].status, unit.change):
                changed.append((unit, unit.change))
        self._many("history_insert", self.records)
        self._many("message_take", taken)
        if setters or events:
            news = {*told, *(row[0] for row in self.conn.executemany(Q["event_put"], events))}
            # Before this batch's own watches: who parks here is seen to below.
            self._many("wake_watchers", [setter for setter in setters if setter[1] in news])
        if changed:
            self._change(changed)
        problems.write(self.conn, app, [unit for unit in units if unit.trouble is not None], now)
        self._many("wake_insert", [wake for wake in self.wakes if not self._ended(wake[1])])

    def _ended(self, id: str) -> bool:
        head = self.heads.get(id)
        return head is not None and head.status >= FIRST_CLOSED

    def _woken(self, id: str, nonces: Sequence[bytes]) -> None:
        """Delete wakes that were acted on; of commands to cancel among them one stays known in the row."""
        done = self.conn.executemany(Q["wake_done"], [(self.app, id, nonce) for nonce in nonces])
        commands = [reason for _, reason in done if reason is not None]
        if commands:
            self.conn.execute(Q["workflow_cancel_noted"], (self.app, id, min(commands)))

    def _change(self, changed: list[tuple[Unit, Change]]) -> None:
        """Each workflow's one change of state, and what it causes elsewhere."""
        app, now = self.app, self.now
        rests: list[Bindings] = []
        closes: list[Bindings] = []
        moved: list[Bindings] = []
        anew: list[Bindings] = []
        attributes: list[Bindings] = []
        watches: list[Bindings] = []
        watched: list[Bindings] = []
        for unit, change in changed:
            id, run = unit.key
            head = self.heads[id]
            match change:
                case Close():
                    head.status = CODE[change.status]
                    rests.append((app, id, now, head.status, None, "", None, now))
                    closes.append((app, id, run, change.outcome.value, change.data))
                    watched.append((app, id, change.wake))
                    if change.attributes is not None:
                        attributes.append((app, id, change.attributes))
                case Park():
                    head.status = WAITING
                    rests.append((app, id, now, WAITING, None, change.detail, change.until, None))
                    watches.extend((app, target, id) for target in change.watching)
                case Hold():
                    head.status = HELD
                    rests.append((app, id, now, HELD, change.reason.value, change.detail, change.until, None))
                case Release():
                    head.status = QUEUED
                    rests.append((app, id, now, QUEUED, None, "", now, None))
                    if change.version is not None:
                        moved.append((app, id, change.version))
                    if change.anew:
                        anew.append((app, id))
                case Delete():
                    self.forgotten |= dict.fromkeys((id, *change.others), unit.nonce)
                case Continue():
                    begun = change.next
                    self.conn.execute(Q["past_run_insert"], (app, id, run, CONTINUED, now, now))
                    begin_next(self.conn, app, id, begun.run, begun, now, change.rest)
                    if change.asks_parent:
                        self.conn.execute(Q["workflow_bounded"], (app, id, now))
                    self.conn.execute(Q["stream_continue"], (app, id, run))
                    if change.rest is not None:
                        stand(self.conn, app, id, change, change.rest, now)
                    self.heads[id] = Head(begun.run, CODE[begun.status], begun.claim, begun.nonce, begun.parent)
                    watched.append((app, id, change.wake))
                case Rewind():
                    begun = change.next
                    rewind(self.conn, app, unit.key, change, now, now)
                    self.heads[id] = Head(begun.run, CODE[begun.status], begun.claim, begun.nonce, begun.parent)
                    watched.append((app, id, change.wake))
        self._many("workflow_rest", rests)
        self._many("workflow_moved", moved)
        self._many("workflow_anew", anew)
        self._many("payload_close", closes)
        self._many("workflow_attributes", attributes)
        self._many("wake_clear", [binding[:2] for binding in closes])
        self._many("wake_watchers", watched)
        self._many("watch_insert", watches)
        for unit, change in changed:  # by what the whole batch made of the others
            if isinstance(change, Close):
                self._wake_family(unit.key.id, change)
            elif isinstance(change, Park):
                self._wake_at_once(unit, change)

    def _wake_family(self, id: str, change: Close) -> None:
        if change.family:
            self.conn.execute(Q["wake_children"], (self.app, id, change.wake))
        parent = None if change.parent is None else self.heads.get(change.parent)
        if parent is not None and hears(parent.status):
            self.wakes.append((self.app, change.parent, change.wake, None))
        for child in change.children:
            self._cancel_child(id, child, change.wake, "")

    def _cancel_child(self, id: str, child: str, wake: bytes, reason: str) -> None:
        """Tell it if it is open; not a run that somebody else has begun in the place of a child."""
        head = self.heads.get(child)
        if head is not None and head.status < FIRST_CLOSED and head.parent == id:
            self.wakes.append((self.app, child, wake, reason))

    def _wake_at_once(self, unit: Unit, change: Park) -> None:
        """Wake the waiter here if what it waits for has happened before the watch was written."""
        heads = (self.heads.get(target) for target in change.watching)
        if (
            any(head is None or head.status >= FIRST_CLOSED for head in heads)
            or any(self.conn.execute(Q["event_get"], (self.app, *event)).get for event in change.events)
            or any(page is not None and page.news for page in streams.streams(self.conn, self.app, change.reads))
        ):
            self.wakes.append((self.app, unit.key.id, unit.nonce, None))


def past_nonce(conn: Connection, app: str, id: str, run: int) -> bytes | None:
    """Who inserted an earlier run."""
    found: bytes | None = conn.execute(Q["past_run_nonce"], (app, id, run)).get
    return found


def _moves(status: int, change: Change) -> bool:
    """Whether a change still has something to do: a first try of the same unit may have done it."""
    match change:
        case Park():
            return status < FIRST_CLOSED and status != WAITING
        case Hold(reason=reason):
            return status < FIRST_CLOSED and status != HELD and not (status == QUEUED and reason is Reason.PAUSED)
        case Release():
            return status < FIRST_CLOSED and status != QUEUED
        case Close() | Continue() | Rewind() | Delete():
            return status < FIRST_CLOSED
