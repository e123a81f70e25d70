"""A batch of units as columns: the arrays that the one statement of a commit takes.

This runs on the host's event loop for every write, so it is written for speed: one pass over the units, one list per
column, no object per row. Units whose place in one statement would not be sound are told by ``Columns.unsound``:
a row may be named once only, since parts of one statement do not see each other (ENGINE rule 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.model.records import Outcome, Record
from perdure.model.states import CODE, VERSIONING, Reason, Status
from perdure.model.writes import Change, Close, Hold, Onward, Park, Release, Start, Unit
from perdure.store.postgres.appends import append_columns
from perdure.store.postgres.rows import pack_intents

WAITING, HELD, QUEUED = CODE[Status.WAITING], CODE[Status.HELD], CODE[Status.QUEUED]

Fence = tuple[str, bytes, int]


class Columns:
    """The arrays of one batch, by the names that the SQL gives them, and what kinds of writes are in it."""

    __slots__ = (
        "appending",
        "closing",
        "dependent",
        "fences",
        "held",
        "rest",
        "starts",
        "telling",
        "unsound",
        "values",
        "waking",
    )

    def __init__(self, units: Sequence[Unit]) -> None:
        self.values: dict[str, Sequence[Any]] = {}
        self.fences: list[Fence] = []
        self.starts: list[tuple[Start, Unit | None]] = []  # own starts with their unit, children without
        self.held = False  # some row changes state or closes
        self.closing = False  # own starts that close at once
        self.appending = False  # to streams
        self.rest = False  # messages, events, marks: what few batches have
        self.dependent = False  # an own start with records: they stand or fall with it
        self.unsound = False
        self.waking: list[tuple[str, bytes, str | None, str]] = []
        self.telling: list[tuple[str, bytes]] = []  # own starts that their watchers must hear of
        self._sort(units)
        if appending := [unit for unit in units if unit.appends]:
            self.appending = True
            self.values.update(append_columns(appending))

    def silent(self) -> Columns:
        """The same without own starts telling their watchers: the longer way tells all watchers itself."""
        self.values.pop("v_id", None)
        self.values.pop("v_nonce", None)
        return self

    def _sort(self, units: Sequence[Unit]) -> None:
        recs: list[Record] = []
        ids: list[str] = []
        runs: list[int] = []
        nonces: list[bytes] = []
        versions: list[str] = []
        owns: list[str | None] = []
        changes: list[tuple[Unit, Change]] = []
        rest: list[Unit] = []
        for unit in units:
            key, start = unit.key, unit.start
            self.unsound |= _is_rare(unit) or _more_than_ends(unit)
            if start is not None:
                self.starts.append((start, unit))
                if isinstance(unit.change, Close):
                    self.closing = True
                    self._wakes(unit.change, start.id)
                    self.telling.append((start.id, unit.change.wake))
                elif unit.events or unit.appends:
                    self.telling.append((start.id, unit.nonce))
                if isinstance(unit.change, Onward) or unit.children:
                    self.unsound = True
            elif unit.claim is not None:
                self.fences.append((key.id, unit.claim, key.run))
                if unit.change is not None:
                    changes.append((unit, unit.change))
            records = unit.records
            if records:
                n = len(records)
                own = None
                if start is not None:
                    own = start.id
                    self.dependent = True
                if n == 1:
                    recs.append(records[0])
                    ids.append(key.id)
                    runs.append(key.run)
                    nonces.append(unit.nonce)
                    versions.append(unit.version)
                    owns.append(own)
                else:
                    recs += records
                    ids += [key.id] * n
                    runs += [key.run] * n
                    nonces += [unit.nonce] * n
                    versions += [unit.version] * n
                    owns += [own] * n
            if unit.children:
                self.starts += [(child, None) for child in unit.children]
            if unit.sends or unit.events or unit.taken or unit.woken:
                rest.append(unit)
        self.rest = bool(rest)
        if self.fences:
            self._fence()
        if self.starts:
            self._starts()
        if recs:
            self._history(recs, (ids, runs, nonces, versions, owns))
        if changes:
            self._changes(changes)
        ended = frozenset(self.values.get("p_id", ())) if rest or self.waking else frozenset[str]()
        if rest:
            self._rest(rest, ended)
        waking = [wake for wake in self.waking if wake[0] not in ended]
        if waking:
            dests, wakes, commands, closing = zip(*sorted(waking, key=_by_target), strict=True)
            self.values.update(k_dest=dests, k_nonce=wakes, k_cancel=commands, k_by=closing)
        if self.telling:
            told, tellings = zip(*self.telling, strict=True)
            self.values.update(v_id=told, v_nonce=tellings)

    def _fence(self) -> None:
        self.fences.sort()  # by code point, as the rows' collation does
        ids, claims, runs = zip(*self.fences, strict=True)
        self.values.update(f_id=ids, f_claim=claims, f_run=runs)
        if len(self.fences) > 1 and len(set(ids)) < len(ids):
            self.unsound = True

    def _history(self, recs: list[Record], owners: tuple[list[Any], ...]) -> None:
        ids, runs, nonces, versions, owns = owners
        self.values.update(
            h_id=ids,
            h_run=runs,
            h_seq=[r.seq for r in recs],
            h_path=[r.path for r in recs],
            h_kind=[r.kind for r in recs],
            h_name=[r.name for r in recs],
            h_at=[r.at for r in recs],
            h_fingerprint=[r.fingerprint for r in recs],
            h_outcome=[r.outcome for r in recs],
            h_data=[None if r.data is None else r.data.decode() for r in recs],
            h_attempt=[r.attempt for r in recs],
            h_shown=[r.shown for r in recs],
            h_intents=[pack_intents(r.intents) if r.intents else None for r in recs],
            h_version=versions,
            h_nonce=nonces,
            h_own=owns,
        )

    def _starts(self) -> None:
        starts = self.starts
        if len(starts) > 1:
            starts.sort(key=_by_id)
        plain = [s for s, _ in starts]
        ids = [s.id for s in plain]
        if len(ids) > 1 and len(set(ids)) < len(ids):
            self.unsound = True
        if self.fences and not {fence[0] for fence in self.fences}.isdisjoint(ids):
            self.unsound = True
        placed = [_placed(s, u) for s, u in starts]
        self.unsound |= any(u is not None and isinstance(u.change, Park) and bool(u.change.watching) for _, u in starts)
        self.unsound |= any(s.expires is not None for s in plain)
        status, reason, detail, owner, delay, until, last, outcome, output = zip(*placed, strict=True)
        self.values.update(
            s_id=ids,
            s_run=[s.run for s in plain],
            s_lineage=[s.lineage for s in plain],
            s_name=[s.name for s in plain],
            s_version=[s.version for s in plain],
            s_status=status,
            s_reason=reason,
            s_detail=detail,
            s_claim=[s.claim for s in plain],
            s_owner=owner,
            s_last=last,
            s_delay=delay,
            s_until=until,
            s_timeout=[s.timeout for s in plain],
            s_deadline=[s.deadline for s in plain],
            s_began=[s.began for s in plain],
            s_parent=[s.parent for s in plain],
            s_parent_run=[s.parent_run for s in plain],
            s_parent_path=[s.parent_path for s in plain],
            s_on_close=[s.on_parent_close for s in plain],
            s_queue=[s.queue for s in plain],
            s_priority=[s.priority for s in plain],
            s_fingerprint=[s.fingerprint for s in plain],
            s_attributes=[None if s.attributes is None else s.attributes.decode() for s in plain],
            s_intents=[pack_intents(s.intents) if s.intents else None for s in plain],
            s_nonce=[s.nonce for s in plain],
            s_versioning=[VERSIONING[s.versioning] for s in plain],
            s_partition=[s.partition for s in plain],
            s_lane=[s.lane for s in plain],
            s_expires=[s.expires for s in plain],
            s_input=[s.input.decode() for s in plain],
            s_outcome=outcome,
            s_output=output,
        )

    def _changes(self, changes: list[tuple[Unit, Change]]) -> None:
        """Each row's one change, and the outcomes and wakes of those that close."""
        rows: list[tuple[str, int, str | None, str, int | None, int, int]] = []
        ends: list[tuple[str, int, Outcome, str | None]] = []
        for unit, change in changes:
            id, run = unit.key
            last = unit.records[-1].seq if unit.records else 0
            if isinstance(change, Close):
                rows.append((id, CODE[change.status], None, "", None, last, run))
                ends.append((id, run, change.outcome, None if change.data is None else change.data.decode()))
                self._wakes(change, id)
            elif isinstance(change, Park):
                rows.append((id, WAITING, None, change.detail, change.until, last, run))
                if change.watching:
                    self.unsound = True
            elif isinstance(change, Hold):
                rows.append((id, HELD, change.reason, change.detail, change.until, last, run))
            elif isinstance(change, Release):
                rows.append((id, QUEUED, None, "", None, last, run))
                self.unsound |= change.anew
            else:
                self.unsound = True
        if rows:
            self.held = True
            ids, status, reasons, details, untils, lasts, runs = zip(*rows, strict=True)
            self.values.update(
                c_id=ids,
                c_status=status,
                c_reason=reasons,
                c_detail=details,
                c_until=untils,
                c_last=lasts,
                c_run=runs,
            )
        if ends:
            ended, of, outcomes, outputs = zip(*ends, strict=True)
            self.values.update(p_id=ended, p_run=of, p_outcome=outcomes, p_output=outputs)

    def _wakes(self, change: Close, by: str) -> None:
        if change.parent is not None:
            self.waking.append((change.parent, change.wake, None, by))
        for child in change.children:
            self.waking.append((child, change.wake, "", by))

    def _rest(self, units: list[Unit], ended: frozenset[str]) -> None:
        """What few batches have. ``ended``: the runs that close in this one, which no wake must outlive."""
        sends: list[tuple[Any, ...]] = []
        events: list[tuple[Any, ...]] = []
        taken: list[tuple[str, bytes, int, int]] = []
        woken: list[tuple[str, bytes]] = []
        noting: list[str] = []
        for unit in units:
            id, run = unit.key
            own = id if unit.start is not None else None
            sends += [
                (
                    s.dest, s.mid, s.topic, s.data.decode(), s.sender, s.key, s.known, own,
                    None if s.dest in ended else s.wake,
                )
                for s in unit.sends
            ]  # fmt: skip
            latest = {event.name: event.data for event in unit.events}
            events += [(id, run, name, data.decode(), own) for name, data in latest.items()]
            taken += [(id, mid, run, seq) for mid, seq in unit.taken]
            woken += [(id, nonce) for nonce in unit.woken]
            if unit.woken and unit.change is None:
                noting.append(id)
        sends.sort(key=_by_destination)  # two batches then wait for each other in one order only
        for prefix, names, rows in (
            ("m_", ("dest", "mid", "topic", "data", "sender", "key", "known", "own", "wake"), sends),
            ("e_", ("id", "run", "name", "data", "own"), events),
            ("r_", ("dest", "mid", "run", "seq"), taken),
            ("d_", ("dest", "nonce"), woken),
        ):
            if rows:
                for name, column in zip(names, zip(*rows, strict=True), strict=True):
                    self.values[prefix + name] = column
        self.values["n_id"] = noting


def _is_rare(unit: Unit) -> bool:
    """Whether it tells what a policy decided, what fails, or a child that is given up."""
    return unit.decision is not None or unit.trouble is not None or bool(unit.given_up)


def _more_than_ends(unit: Unit) -> bool:
    """Whether a run ends with other attributes than it had, or with children that are to be looked for."""
    return isinstance(unit.change, Close) and (unit.change.attributes is not None or unit.change.family)


def _by_id(item: tuple[Start, Unit | None]) -> str:
    return item[0].id


def _by_target(item: tuple[str, bytes, str | None, str]) -> tuple[str, bytes]:
    return item[:2]


def _by_destination(send: tuple[Any, ...]) -> tuple[str, str]:
    return send[0], send[5] or ""


_Placed = tuple[int, str | None, str, bytes | None, int | None, int | None, int, int, str | None]


def _placed(start: Start, unit: Unit | None) -> _Placed:
    """A new row's status, reason, detail, owner, delay, until, last seq, outcome and output."""
    change = None if unit is None else unit.change
    if change is None:
        last = unit.records[-1].seq if unit is not None and unit.records else 0
        if start.claim is not None:
            return CODE[start.status], None, "", start.owner, None, None, last, 0, None
        return CODE[start.status], None, "", None, start.delay, start.until, last, 0, None
    assert unit is not None
    last = unit.records[-1].seq if unit.records else 0
    match change:
        case Close():
            output = None if change.data is None else change.data.decode()
            return CODE[change.status], None, "", None, None, None, last, change.outcome, output
        case Park():
            return WAITING, None, change.detail, None, None, change.until, last, 0, None
        case Hold(reason=reason) if reason is not Reason.PAUSED:  # nobody can have told it to
            return HELD, change.reason, change.detail, None, None, None, last, 0, None
        case Hold():  # the pause was taken back, so to say: queued, and no drain
            return QUEUED, Reason.PAUSED, "", None, None, None, last, 0, None
        case _:  # Release; an Onward takes the longer way before it comes here
            return QUEUED, None, "", None, None, None, last, 0, None
