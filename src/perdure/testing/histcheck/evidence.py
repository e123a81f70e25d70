"""The evidence, read and put in order: what each invariant looks at.

Nothing here judges. Times are microseconds, identities hexadecimal, statuses names.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from perdure.model.cuts import Cut, read_cut
from perdure.model.records import SKIP, Kind, Outcome
from perdure.model.states import CODES, Status

Row = dict[str, Any]
RunOf = tuple[str, int]  # workflow id and run

KEYS: dict[str, tuple[str, ...]] = {
    "workflow": ("id",),
    "past_run": ("id", "run"),
    "payload": ("id", "run"),
    "history": ("id", "run", "seq"),
    "event": ("id", "run", "name"),
    "stream": ("id", "run", "name"),
    "stream_value": ("id", "chain", "name", "place"),
    "message": ("dest", "mid"),
    "wake": ("dest", "nonce"),
    "watch": ("target", "waiter"),
    "incarnation": ("id",),
    "decision": ("id", "run", "claim"),
    "queue": ("name",),
    "dedup": ("queue", "key"),
    "schedule": ("name",),
    "firing": ("schedule", "at", "until"),
    "problem": ("id", "run", "kind", "path", "version"),
    "batch": ("key",),
    "batch_target": ("batch", "id"),
    "routing": ("app",),
    "deployment_change": ("revision",),
}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit. ``old`` is None for what the audit had not seen before.

    ``seen``: nobody else could see it earlier: when its transaction was committed, or at least made its last change.
    """

    n: int
    tx: int
    at: int
    seen: int
    table: str
    op: str
    old: Row | None
    new: Row | None

    @property
    def row(self) -> Row:
        row = self.new if self.new is not None else self.old
        assert row is not None, "a change is of some row"
        return row

    def __str__(self) -> str:
        return f"{self.op} {self.table} {told(self.row)}"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A span in which one token held a workflow."""

    token: str
    owner: str
    run: int
    n: int  # of the change that gave it
    at: int
    attempts: int


class Cutting(NamedTuple):
    """The mark after the records with which a run begins: see ``perdure.model.cuts``."""

    change: Change
    cut: Cut

    @property
    def row(self) -> Row:
        return self.change.row


def read_lines(path: str | os.PathLike[str]) -> list[Row]:
    """The lines of one stream; none if the file is missing. A last line cut short by a kill is left out."""
    found: list[Row] = []
    if Path(path).exists():
        for line in Path(path).read_bytes().split(b"\n"):
            try:
                found.append(msgspec.json.decode(line))
            except msgspec.DecodeError:
                continue
    return found


class Evidence:
    """All that is known of what happened to one app (``app`` may be left out if the audit tells of one only)."""

    def __init__(
        self,
        audit: Sequence[Row],
        ledger: Sequence[Row] = (),
        history: Sequence[Row] = (),
        faults: Sequence[Row] = (),
        *,
        app: str | None = None,
        transactions: Collection[str] = (),
        lost_mail: Collection[tuple[str, str]] = (),
    ) -> None:
        """``transactions``: names of steps whose outcome may be in a commit of the user's own.

        ``lost_mail``: (to whom, what) of messages that a failover has lost; somebody may have received them before.
        """
        apps = {line["row"].get("app") for line in audit} - {None}
        if app is None and len(apps) > 1:
            raise ValueError(f"the audit tells of several apps ({', '.join(sorted(apps))}); say which one: app=")
        self.transactions = frozenset(transactions)
        self.lost_mail = frozenset(lost_mail)
        self.ledger = list(ledger)
        self.calls = list(history)
        self.faults = list(faults)
        self.changes = _changes([line for line in audit if app is None or line["row"].get("app") in (app, None)])
        self.tables: dict[str, list[Change]] = {}
        for change in self.changes:
            self.tables.setdefault(change.table, []).append(change)

    def of(self, table: str) -> list[Change]:
        """The changes of one table, in order."""
        return self.tables.get(table, [])

    def final(self, table: str) -> dict[tuple[Any, ...], Row]:
        """The rows of a table as they are in the end, by key."""
        rows: dict[tuple[Any, ...], Row] = {}
        for change in self.of(table):
            key = _key(table, change.row)
            if change.new is None:
                rows.pop(key, None)
            else:
                rows[key] = change.new
        return rows

    # -- workflows

    @cached_property
    def workflows(self) -> dict[str, list[Change]]:
        """The changes of each workflow's row, in order of commit."""
        found: dict[str, list[Change]] = {}
        for change in self.of("workflow"):
            found.setdefault(change.row["id"], []).append(change)
        return found

    @cached_property
    def ends(self) -> dict[str, Row]:
        """Each workflow's row as it is in the end."""
        return {key[0]: row for key, row in self.final("workflow").items()}

    @cached_property
    def records(self) -> dict[RunOf, list[Change]]:
        """What was inserted into the history of each run, in order of commit."""
        found: dict[RunOf, list[Change]] = {}
        for change in self.of("history"):
            if change.op == "insert":
                found.setdefault((change.row["id"], change.row["run"]), []).append(change)
        return found

    @cached_property
    def claims(self) -> dict[str, list[Claim]]:
        """Who held each workflow, one after the other."""
        found: dict[str, list[Claim]] = {}
        for id, changes in self.workflows.items():
            spans = found.setdefault(id, [])
            for change in changes:
                row = change.new
                if row is None or row["owner"] is None or row["claim"] is None:  # moved, and not taken yet
                    continue
                if spans and (spans[-1].token, spans[-1].run) == (row["claim"], row["run"]):
                    continue
                spans.append(
                    Claim(
                        token=row["claim"], owner=row["owner"], run=row["run"], n=change.n, at=change.at,
                        attempts=row["attempts"],
                    )
                )  # fmt: skip
        return found

    @cached_property
    def cuts(self) -> list[Cutting]:
        """The own mark of each run that began with records of another: an earlier one is kept with what it follows."""
        found: list[Cutting] = []
        for changes in self.records.values():
            marks = [c for c in changes if kind_of(c.row) is Kind.CUT]
            if marks:
                last = max(marks, key=lambda c: c.row["seq"])
                found.append(Cutting(last, read_cut(last.row["data"].encode())))
        return sorted(found, key=lambda one: one.change.n)

    @cached_property
    def kept(self) -> dict[RunOf, int]:
        """For each run that began with records of another, the place after the last of them."""
        return {(one.row["id"], one.row["run"]): one.row["seq"] for one in self.cuts}

    @cached_property
    def given(self) -> set[tuple[str, int, int]]:
        """(workflow, run, seq) of the outcomes that a person gave to steps: they follow the order, under its nonce."""
        found: set[tuple[str, int, int]] = set()
        for (id, run), changes in self.records.items():
            for order, change in pairwise(changes):
                is_skip = kind_of(order.row) is Kind.DECISION and order.row["name"] == SKIP
                if is_skip and order.row["nonce"] == change.row["nonce"]:
                    found.add((id, run, change.row["seq"]))
        return found

    @cached_property
    def lineages(self) -> dict[RunOf, str]:
        """What each run descends from; a rewound run goes on with the lineage of the run before."""
        return {
            (id, row["run"]): row["lineage"]
            for id, changes in self.workflows.items() for change in changes if (row := change.new) is not None
        }  # fmt: skip

    @cached_property
    def decided(self) -> set[tuple[str, int, str]]:
        """(workflow, run, decision) of what was decided."""
        return {
            (c.row["id"], c.row["run"], c.row.get("decision", "")) for c in self.of("decision") if c.new is not None
        }

    @cached_property
    def claim_of(self) -> dict[tuple[str, str], Claim]:
        """Claims by workflow and token."""
        return {(id, claim.token): claim for id, spans in self.claims.items() for claim in spans}

    def row_at(self, id: str, n: int) -> Row | None:
        """A workflow's row as it was right after the audit's line ``n``."""
        row: Row | None = None
        for change in self.workflows.get(id, ()):
            if change.n > n:
                break
            row = change.new
        return row

    def row_seen_by(self, who: Change, id: str) -> Row | None:
        """A workflow's row as whoever made that change saw it."""
        row: Row | None = None
        for change in self.workflows.get(id, ()):
            if not self.sees(who, change):
                break
            row = change.new
        return row

    def sees(self, who: Change, change: Change) -> bool:
        """Whether a change was there for whoever made that other one: what is committed later is not there yet."""
        return change.n < who.n and change.seen <= who.at

    # -- effects

    @cached_property
    def begun(self) -> dict[tuple[str, int, str], list[Row]]:
        """Begun effects by (workflow, run, path)."""
        found: dict[tuple[str, int, str], list[Row]] = {}
        for line in self.ledger:
            if line["phase"] == "begin":
                found.setdefault((line["w"], line["run"], line["path"]), []).append(line)
        return found

    @cached_property
    def begun_of(self) -> dict[str, list[tuple[tuple[str, int, str], list[Row]]]]:
        """The same, by workflow."""
        found: dict[str, list[tuple[tuple[str, int, str], list[Row]]]] = {}
        for key, begun in self.begun.items():
            found.setdefault(key[0], []).append((key, begun))
        return found

    # -- clients

    @cached_property
    def answers(self) -> list[tuple[Row, Row]]:
        """Calls of clients that were answered: (invocation, answer)."""
        invoked: dict[tuple[str, int], Row] = {}
        found: list[tuple[Row, Row]] = []
        for line in self.calls:
            key = (line["c"], line["i"])
            if line["type"] == "invoke":
                invoked[key] = line
            elif key in invoked:
                found.append((invoked[key], line))
        return found

    # -- faults

    @cached_property
    def healed(self) -> int | None:
        """Since when no more faults were made; None: they never ended, so nothing had to come to an end."""
        at = [line["at"] for line in self.faults if line["fault"] == "heal"]
        return at[-1] if at else None

    def struck(self, fault: str) -> set[str]:
        """Whom a kind of fault hit, whether they had work or not."""
        return {str(line["whom"]) for line in self.faults if line["fault"] == fault}


def _changes(lines: Sequence[Row]) -> list[Change]:
    rows: dict[tuple[str, tuple[Any, ...]], Row] = {}
    seen = _seen(lines)
    found: list[Change] = []
    for line in lines:
        table, op, row = line["table"], line["op"], line["row"]
        key = (table, _key(table, row))
        old, at = rows.get(key), int(line["at"])
        if op == "delete":
            rows.pop(key, None)
        else:
            rows[key] = row
        found.append(
            Change(
                n=line["n"], tx=line["tx"], at=at, seen=seen.get(line["tx"], at), table=table, op=op,
                old=old if op != "delete" else row, new=None if op == "delete" else row,
            )
        )  # fmt: skip
    return found


def _seen(lines: Sequence[Row]) -> dict[int, int]:
    """From when on others saw what a transaction did; of those that are known by a number."""
    seen: dict[int, int] = {}
    for line in lines:
        if line["tx"]:
            seen[line["tx"]] = max(seen.get(line["tx"], 0), line["at"], line.get("committed") or 0)
    return seen


def _key(table: str, row: Row) -> tuple[Any, ...]:
    names = KEYS.get(table)
    return tuple(row.values()) if names is None else tuple(row[name] for name in names)


def status_of(row: Row) -> Status:
    """The status of a workflow's row."""
    code: int = row["status"]
    return CODES[code]


def kind_of(row: Row) -> Kind:
    """What a history record tells."""
    return Kind(row["kind"])


def outcome_of(row: Row) -> Outcome:
    """How what a history record tells of ended."""
    return Outcome(row["outcome"])


def told(row: Row) -> str:
    """A row in few words, for a person."""
    words: list[str] = []
    for name, value in row.items():
        if name in SHOWN and value not in (None, ""):
            shown = _in_words(row, name, value)
            words.append(f"{name}={shown}")
    return " ".join(words)


SHOWN = frozenset(
    (
        "id",
        "run",
        "seq",
        "path",
        "chain",
        "place",
        "n",
        "kind",
        "name",
        "outcome",
        "status",
        "owner",
        "claim",
        "epoch",
        "attempts",
        "dest",
        "mid",
        "topic",
        "key",
        "taken_run",
        "taken_seq",
        "state",
        "lease_until",
        "until",
        "deadline",
        "nonce",
        "data",
        "output",
        "reason",
        "parent",
    )
)


def _in_words(row: Row, name: str, value: Any) -> str:
    if name == "status":
        return str(status_of(row))
    if name == "kind" and isinstance(value, int):  # of a record; others tell theirs in words
        return kind_of(row).name.lower()
    text = str(value)
    return f"{text[:8]}…{text[-6:]}" if len(text) == 32 and " " not in text else text[:60]
