"""Invariants of what a person orders: resets, forks, batches, where new work goes."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from perdure.model.batches import FATE, STATE, BatchState, Fate
from perdure.testing.histcheck.evidence import Change, Cutting, Evidence, Row, status_of
from perdure.testing.histcheck.judge import Findings, invariant

WAITING, DONE, FAILED = FATE[Fate.WAITING], FATE[Fate.DONE], FATE[Fate.FAILED]
SETTLED = {FATE[Fate.DONE]: "done", FATE[Fate.SKIPPED]: "skipped", FATE[Fate.FAILED]: "failed"}
RUNNING = STATE[BatchState.RUNNING]
NO_ROUTE = frozenset({"metadata", "delete"})  # changes of a deployment that leave new work where it went


def _kept(of: Evidence, cutting: Cutting) -> tuple[list[Row], list[Row]]:
    """The records before the mark, and those that they are taken from, without what tells them apart."""
    key = (cutting.row["id"], cutting.row["run"])
    mine = [c.row for c in of.records.get(key, ()) if c.row["seq"] < cutting.row["seq"]]
    source = [c.row for c in of.records.get((cutting.cut.id, cutting.cut.run), ()) if c.row["seq"] <= cutting.cut.kept]
    return _plain(mine), _plain(source)


def _plain(rows: list[Row]) -> list[Row]:
    """In the order of their places, without whose they are."""
    return [
        {name: value for name, value in row.items() if name not in ("id", "run")}
        for row in sorted(rows, key=lambda row: row["seq"])
    ]


@invariant("I54")
def a_reset_keeps_the_same_records(of: Evidence, found: Findings) -> None:
    """A rewound run begins with the very records that it keeps, and a mark; the run before is written to no more."""
    for cutting in of.cuts:
        row, cut = cutting.row, cutting.cut
        if cut.id != row["id"]:
            continue
        found.look()
        mine, source = _kept(of, cutting)
        if mine != source or row["seq"] != cut.kept + 1:
            found.violated(f"run {row['run']} of {row['id']} does not begin as run {cut.run} did", cutting.change)
        if row["run"] != cut.run + 1:
            found.violated(f"run {row['run']} of {row['id']} goes on from run {cut.run}", cutting.change)
        late = [
            c for c in of.records.get((cut.id, cut.run), ())
            if c.n > cutting.change.n and (not c.tx or c.tx != cutting.change.tx)
        ]  # fmt: skip
        if late:
            found.violated(f"run {cut.run} of {row['id']} was written to after the reset", cutting.change, *late)


@invariant("I54b")
def an_order_is_done_once(of: Evidence, found: Findings) -> None:
    """The same order, again, begins no other run, unless another order or a start came between; and no other fork."""
    seen: dict[tuple[str, str], Cutting] = {}
    latest: dict[str, Cutting] = {}  # by which a workflow has begun anew
    for cutting in of.cuts:
        cut, own = cutting.cut, cutting.cut.id == cutting.row["id"]
        before = latest.get(cut.id) if own else seen.get((cut.id, cut.key))
        if own:
            latest[cut.id] = cutting
        seen[cut.id, cut.key] = cutting
        if not cut.key:
            continue
        found.look()
        if before is not None and before.cut.key == cut.key and (not own or _of_one_life(of, before, cutting)):
            found.violated(f"the order {cut.key!r} about {cut.id} was done twice", before.change, cutting.change)
    for asked, answer in of.answers:
        if asked["op"] == "reset" and answer["type"] == "ok" and asked.get("key"):
            found.look()
            if (asked["w"], asked["key"]) not in seen and not _nothing_to_drop(of, asked, answer):
                found.violated(f"a reset of {asked['w']} was acknowledged, and no run began by it", asked, answer)


def _of_one_life(of: Evidence, first: Cutting, second: Cutting) -> bool:
    """Whether the id was not started anew between two of its runs."""
    one, other = (of.lineages.get((cutting.row["id"], cutting.row["run"])) for cutting in (first, second))
    return one == other or None in (one, other)


def _nothing_to_drop(of: Evidence, asked: Row, answer: Row) -> bool:
    """Whether at some moment of the call it had never begun: there was nothing to drop."""
    return any(
        change.at <= answer["at"] and (row := change.new) is not None and status_of(row).open and not row["last_seq"]
        for change in of.workflows.get(asked["w"], ())
    )


@invariant("I55")
def a_fork_keeps_the_same_records(of: Evidence, found: Findings) -> None:
    """A fork begins with the very records that it keeps of its source, and a mark, under a lineage of its own."""
    lineages: dict[str, str] = {}
    for cutting in of.cuts:
        row, cut = cutting.row, cutting.cut
        if cut.id == row["id"] or row["run"] != 1:
            continue
        found.look()
        mine, source = _kept(of, cutting)
        if mine != source or row["seq"] != cut.kept + 1:
            found.violated(f"{row['id']} does not begin as {cut.id} did", cutting.change)
        lineage = of.lineages.get((row["id"], 1), "")
        if lineages.setdefault(lineage, row["id"]) != row["id"] or lineage == of.lineages.get((cut.id, cut.run)):
            found.violated(f"{row['id']} has the lineage of another", cutting.change)


@invariant("I56")
def messages_after_the_cut_come_again(of: Evidence, found: Findings) -> None:
    """With a reset, what the kept part received is the next run's; what came later comes again, or is excluded.

    Excluded is what is taken at place 0 of the next run. (Judged where commits have names.)
    """
    boxes: dict[str, dict[str, list[Change]]] = {}
    for change in of.of("message"):
        boxes.setdefault(change.row["dest"], {}).setdefault(change.row["mid"], []).append(change)
    for cutting in of.cuts:
        if cutting.cut.id != cutting.row["id"] or not cutting.change.tx:
            continue
        for changes in boxes.get(cutting.cut.id, {}).values():
            before = [c for c in changes if c.n < cutting.change.n and c.tx != cutting.change.tx]
            after = [c for c in changes if c.tx == cutting.change.tx] or before
            if before and before[-1].new is not None:
                found.look()
                if not _carried_over(cutting, before[-1].new, after[-1].new):
                    found.violated(f"a message of {cutting.cut.id} went astray", cutting.change, before[-1], after[-1])


def _carried_over(cutting: Cutting, before: Row, after: Row | None) -> bool:
    cut, run = cutting.cut, cutting.row["run"]
    if after is None:
        return False
    here = (after["taken_run"], after["taken_seq"])
    excluded = bool(cut.dropped) and here == (run, 0)
    if before["taken_seq"] is None or (before["taken_run"] == cut.run and before["taken_seq"] > cut.kept):
        return here == (None, None) or excluded
    if before["taken_run"] == cut.run:
        return here == (run, before["taken_seq"])
    return here == (before["taken_run"], before["taken_seq"])


@invariant("I61")
def a_batch_has_what_was_frozen(of: Evidence, found: Findings) -> None:
    """A batch's targets are those of the commit that made it; each is settled once, while the batch is carried out."""
    made = {c.row["key"]: c for c in of.of("batch") if c.op == "insert"}
    for change in of.of("batch_target"):
        old, new = change.old, change.new
        birth = made.get(change.row["batch"])
        if new is None or birth is None:
            continue  # swept with its batch
        found.look()
        if change.op == "insert" and birth.tx != change.tx:
            found.violated(f"{new['id']} became a target after its batch was frozen", birth, change)
        elif old is not None and old["state"] != new["state"]:
            again = old["state"] == FAILED and new["state"] == WAITING
            if old["state"] != WAITING and not again:
                found.violated(f"{new['id']} was settled twice", change)


@invariant("I62")
def the_counters_are_the_rows(of: Evidence, found: Findings) -> None:
    """At each commit a batch's counters are the sums of its targets; no chunk comes before its time, or after the end.

    (Judged where commits have names.)
    """
    changes: dict[str, list[Change]] = {}
    for change in of.changes:
        if change.tx and change.table in ("batch", "batch_target"):
            changes.setdefault(change.row["key" if change.table == "batch" else "batch"], []).append(change)
    for of_it in changes.values():
        counts: Counter[int] = Counter()
        for _, together in groupby(of_it, key=lambda change: change.tx):
            last: Change | None = None
            for change in together:
                if change.table == "batch":
                    last = change
                    _in_time(found, change)
                    continue
                for row, by in ((change.old, -1), (change.new, 1)):
                    if row is not None:
                        counts[row["state"]] += by
            if last is not None and last.new is not None:
                found.look()
                _adds_up(found, counts, last)


def _in_time(found: Findings, change: Change) -> None:
    old, new = change.old, change.new
    if old is None or new is None or old["done"] == new["done"]:
        return
    if old["state"] != RUNNING:
        found.violated(f"batch {new['key']} was carried out after its end", change)
    if change.at < old["next"]:
        found.violated(f"a chunk of {new['key']} came {old['next'] - change.at} us before its time", change)


def _adds_up(found: Findings, counts: Counter[int], change: Change) -> None:
    row = change.row
    told = {name: row[name] for name in SETTLED.values()}
    there = {name: counts[code] for code, name in SETTLED.items()}
    if told != there or row["total"] != counts.total():
        found.violated(f"batch {row['key']} counts {told} of {row['total']}, its targets are {there}", change)


@invariant("I64")
def each_act_has_its_line(of: Evidence, found: Findings) -> None:
    """What a batch did to a target has one line of audit, in the commit that settled it."""
    lines: dict[tuple[str, str], list[Change]] = {}
    for change in of.of("audit_line"):
        if change.op == "insert" and change.row["id"]:
            lines.setdefault((change.row["batch"], change.row["id"]), []).append(change)
    done: dict[tuple[str, str], list[Change]] = {}
    for change in of.of("batch_target"):
        old, new = change.old, change.new
        if old is not None and new is not None and old["state"] != DONE and new["state"] == DONE:
            done.setdefault((new["batch"], new["id"]), []).append(change)
    for place in dict.fromkeys((*lines, *done)):
        found.look()
        told, settled = lines.get(place, []), done.get(place, [])
        if [c.tx for c in told] != [c.tx for c in settled]:
            found.violated(f"{place[1]} was acted on {len(settled)} times, {len(told)} are told of", *settled, *told)


@invariant("I50")
def each_change_of_the_routing_is_told(of: Evidence, found: Findings) -> None:
    """Each change of a deployment is one revision more and one line with what holds then; what held already is none."""
    lines: dict[int, Change] = {}
    for change in of.of("deployment_change"):
        if change.op == "insert":
            lines[change.row["revision"]] = change
    for change in of.of("routing"):
        old, new = change.old, change.new
        if new is None or old is None or new["revision"] == old["revision"]:
            if old is not None and new is not None and _goes(old) != _goes(new):
                found.violated("new work goes elsewhere, and no revision tells of it", change)
            continue
        found.look()
        line = lines.get(new["revision"])
        if new["revision"] != old["revision"] + 1:
            found.violated(f"revision {new['revision']} follows {old['revision']}", change)
        elif line is None or line.tx != change.tx or _goes(line.row) != _goes(new):
            found.violated(f"revision {new['revision']} is not told of as it is", change, line or "")
        elif _goes(old) == _goes(new) and line.row["kind"] not in NO_ROUTE and not _watched(old, new):
            found.violated(f"revision {new['revision']} changes nothing", change, line)


def _goes(row: Row) -> tuple[object, ...]:
    return row["current"], row["ramping"] or "", row["percentage"]


def _watched(old: Row, new: Row) -> bool:
    """Whether what is watched of a ramp has changed."""
    return old.get("watch") != new.get("watch")
