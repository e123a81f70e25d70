"""Invariants of streams."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.records import Kind
from perdure.testing.histcheck.evidence import Change, Evidence, Row, kind_of
from perdure.testing.histcheck.judge import Findings, invariant

Chain = tuple[str, int, str]  # workflow id, chain, name


def _chain(row: Row) -> Chain:
    return row["id"], row["chain"], row["name"]


def _copied(of: Evidence) -> dict[Chain, int]:
    """How many values of a chain were taken over from another when it began."""
    return {
        _chain(change.row): change.row["next"]
        for change in of.of("stream")
        if change.op == "insert" and change.row["kept"] is not None
    }


def _appended(of: Evidence) -> list[Change]:
    """The values that were appended, not copied, in order of commit."""
    copied = _copied(of)
    return [c for c in of.of("stream_value") if c.op == "insert" and c.row["place"] >= copied.get(_chain(c.row), 0)]


def _after(late: Change, early: Change) -> bool:
    """Whether a change was made in a later commit than another."""
    return late.n > early.n and not (late.tx and late.tx == early.tx)


@invariant("I30")
def appended_once(of: Evidence, found: Findings) -> None:
    """A value is appended once: by a body with its record, by a step in order, before its outcome. It never changes."""
    values: dict[tuple[Any, ...], Change] = {}
    writers: dict[tuple[Any, ...], list[Change]] = {}
    for change in of.of("stream_value"):
        if change.op == "update":
            found.violated("a value was changed", change)
    for change in _appended(of):
        found.look()
        row = change.row
        mark = (*_chain(row), row["run"], row["path"], row["n"])
        if values.setdefault(mark, change) is not change:
            found.violated("one write is two values", values[mark], change)
        writers.setdefault((row["id"], row["run"], row["path"], row["name"]), []).append(change)
    for changes in writers.values():
        ordered = sorted(changes, key=lambda c: (c.row["chain"], c.row["place"]))
        if [c.row["n"] for c in ordered] != list(range(len(ordered))):
            found.violated("the values of one writer have a gap, or another order than they were written in", *ordered)
    _by_records(of, found, writers)
    _by_the_holder(of, found)


def _by_records(of: Evidence, found: Findings, writers: dict[tuple[Any, ...], list[Change]]) -> None:
    """Values against the records of the calls that wrote them."""
    ended = {(id, run, c.row["path"]): c for (id, run), cs in of.records.items() for c in cs if _ends(c)}
    for (id, run, path, _), changes in writers.items():
        record = ended.get((id, run, path))
        if record is None or path.startswith("~"):
            continue
        late = [change for change in changes if _after(change, record)]
        if late and kind_of(record.row) is Kind.STEP:
            found.violated("a step appended after its outcome", record, *late)
        if kind_of(record.row) is Kind.STREAM and (late or len(changes) > 1):
            found.violated("a body's value came without its record", record, *changes)
    kept = {place[:2] for place in _kept_records(of)}
    for (id, run, path), record in ended.items():
        row = record.row
        if kind_of(row) is not Kind.STREAM or bytes.fromhex(row["fingerprint"]) or (id, run) in kept:
            continue
        if (id, run, path, row["name"]) not in writers:
            found.violated("a body recorded a write, and there is no value", record)


def _ends(change: Change) -> bool:
    return kind_of(change.row) in (Kind.STEP, Kind.STREAM)


def _kept_records(of: Evidence) -> set[tuple[str, int]]:
    """Runs that began with records of another."""
    return {(id, run) for (id, run), changes in of.records.items() if any(kind_of(c.row) is Kind.CUT for c in changes)}


def _by_the_holder(of: Evidence, found: Findings) -> None:
    """Who wrote to a stream held the workflow then (tokens tell who made them)."""
    for change in of.of("stream"):
        row = change.row
        began = change.op == "insert" and (row["kept"] is not None or row["run"] != row["chain"])
        holder = of.row_at(row["id"], change.n)
        if change.op == "delete" or began or holder is None or holder["claim"] is None or holder["run"] != row["run"]:
            continue
        if row["nonce"][:16] != holder["claim"][:16]:
            found.violated(f"a stream of {row['id']} was written to by who did not hold it", change)


@invariant("I31")
def offsets_have_no_gaps(of: Evidence, found: Findings) -> None:
    """Offsets are 0, 1, 2 … in order of commit, nothing follows the close, and readers see what stood there then."""
    closed: dict[Chain, Change] = {}
    for change in of.of("stream"):
        if change.op != "delete" and change.row["closed"] and change.row["kept"] is None:
            closed.setdefault(_chain(change.row), change)
    ends: dict[Chain, Change] = {}
    for change in _appended(of):
        found.look()
        chain = _chain(change.row)
        last = ends.setdefault(chain, change)
        if last.row["place"] > change.row["place"]:
            if _after(change, last):
                found.violated("a later value has an earlier offset", last, change)
        else:
            ends[chain] = change
        if chain in closed and _after(change, closed[chain]):
            found.violated("a value was appended after the close", closed[chain], change)
    stands: dict[Chain, dict[int, Row]] = {}
    for row in of.final("stream_value").values():
        stands.setdefault(_chain(row), {})[row["place"]] = row
    counts: dict[Chain, int] = {}
    for row in of.final("stream").values():
        counts[_chain(row)] = max(row["next"], counts.get(_chain(row), 0))
    for chain in {**stands, **counts}:
        places = sorted(stands.get(chain, ()))
        if places != list(range(counts.get(chain, 0))):
            found.violated(f"{chain} has {counts.get(chain, 0)} values by its row, at the offsets {places[:50]}")
    _readers(of, found, stands)


def _readers(of: Evidence, found: Findings, stands: dict[Chain, dict[int, Row]]) -> None:
    """What clients read: ``args`` is name and offset, ``value`` the values. Of streams that were never cut."""
    for asked, answer in of.answers:
        if asked["op"] != "read_stream" or answer["type"] != "ok":
            continue
        name, offset = asked["args"]
        chains = [chain for chain in stands if (chain[0], chain[2]) == (asked["w"], name)]
        if len(chains) > 1:
            continue
        found.look()
        there = stands[chains[0]] if chains else {}
        rows = [there.get(offset + nth) for nth in range(len(answer["value"]))]
        seen = [row is not None and msgspec.json.decode(row["data"]) for row in rows]
        if seen != answer["value"]:
            found.violated(f"read of {name} from {offset}: the rows have {seen}", asked, answer)
        count = len(there)
        if offset + len(answer["value"]) < count:
            end = offset + len(seen)
            found.violated(f"a reader of {name} was told of its end at {end}, it has {count} values", asked, answer)
        early = [row for row in rows if row is not None and row["at"] > answer["at"] + 2000]
        if early:
            found.violated("a value was read before it was committed", asked, answer, early[0])
