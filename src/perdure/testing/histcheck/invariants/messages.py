"""Invariants of messages and events."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from perdure.model.records import Kind
from perdure.testing.histcheck.evidence import Change, Evidence, Row, kind_of, outcome_of
from perdure.testing.histcheck.judge import Findings, invariant


@invariant("I23")
def messages_are_taken_once(of: Evidence, found: Findings) -> None:
    """An acknowledged message is there; it is received at most once, and there is one per destination and key."""
    keys: dict[tuple[str, str], Change] = {}
    for change in of.of("message"):
        row, old = change.row, change.old
        if change.op == "insert":
            found.look()
            if row["key"] is not None and keys.setdefault((row["dest"], row["key"]), change) is not change:
                found.violated("two messages under one key", keys[row["dest"], row["key"]], change)
        elif change.op == "update" and old is not None and old["taken_seq"] is not None and _taken(old) != _taken(row):
            rewound = (row["dest"], old["taken_run"] + 1) in of.kept  # then what becomes of it is I56
            if not rewound:
                found.violated("a message was received twice", change)
    _acknowledged(of, found)


def _taken(row: Row) -> tuple[int, int]:
    return row["taken_run"], row["taken_seq"]


def _acknowledged(of: Evidence, found: Findings) -> None:
    """Messages of clients against what they were told."""
    there: dict[str, int] = {}
    keyed: set[tuple[str, str]] = set()
    for row in of.final("message").values():
        if row["key"] is not None:
            keyed.add((row["dest"], row["key"]))
        elif row["sender"] == "":
            there[row["dest"]] = there.get(row["dest"], 0) + 1
    said: dict[str, list[Row]] = {}
    for asked, answer in of.answers:
        if asked["op"] != "send" or answer["type"] != "ok":
            continue
        found.look()
        if asked.get("key") is None:
            said.setdefault(asked["w"], []).append(answer)
        elif (asked["w"], asked["key"]) not in keyed:
            found.violated("an acknowledged message is not there", asked, answer)
    calls = [line for line in of.calls if line["op"] == "send" and line.get("key") is None]
    for dest, count in there.items():
        sent = sum(line["w"] == dest for line in calls if line["type"] == "invoke")
        if calls and count > sent:
            found.violated(f"{sent} messages were sent to {dest} by clients, {count} are there")
    for dest, answers in said.items():
        if there.get(dest, 0) < len(answers):
            found.violated(f"{len(answers)} messages to {dest} were acknowledged, {there.get(dest, 0)} are there",
                           answers[-1])  # fmt: skip


@invariant("I24")
def sent_once_by_a_workflow(of: Evidence, found: Findings) -> None:
    """A send of a workflow is one message, whoever repeats it."""
    messages: dict[tuple[str, str], list[Row]] = {}
    for row in of.final("message").values():
        if row["sender"]:
            messages.setdefault((row["sender"], row["mid"][-12:]), []).append(row)
    chosen = {row["dest"] for row in of.final("message").values() if row["key"] and len(row["key"]) != 32}
    for (id, run), changes in of.records.items():
        lineage = next((c.row["lineage"] for c in of.workflows.get(id, ()) if c.row["run"] == run), None)
        for change in changes:
            row = change.row
            if kind_of(row) is not Kind.SEND or outcome_of(row).name == "ERROR" or lineage is None:
                continue
            if row["seq"] < of.kept.get((id, run), 0):
                continue  # of the run that it was kept from, which a fork may have of another lineage
            found.look()
            sent = messages.get((id, _derived(lineage, row["path"])), [])
            if len(sent) > 1:
                found.violated(f"one send of {id} made {len(sent)} messages", change, *sent)
            elif not sent and row["name"].partition(" ")[0] not in chosen:
                found.violated(f"{id} recorded a send, and there is no message", change)


def _derived(lineage: str, path: str) -> str:
    """The part of a message's id that names the call which sent it."""
    key = bytes.fromhex(lineage)
    return hashlib.blake2b(path.encode(), key=key, person=b"message", digest_size=16).digest()[:6].hex()


@invariant("I25")
def first_in_first_out(of: Evidence, found: Findings) -> None:
    """Messages of one sender on one topic are received in the order in which they were sent."""
    waiting: dict[tuple[str, ...], dict[str, Change]] = {}
    for change in of.of("message"):
        row = change.row
        line = (row["dest"], row["topic"], row["sender"], "" if row["sender"] else row["mid"][16:])
        queue = waiting.setdefault(line, {})
        if row["taken_seq"] is None and change.new is not None:  # new, or to be received again after a reset
            queue[row["mid"]] = change
        elif row["taken_seq"] == 0:  # excluded by a reset
            queue.pop(row["mid"], None)
        elif row["taken_seq"] is not None and row["mid"] in queue:
            found.look()
            queue.pop(row["mid"])
            before = [mid for mid in queue if mid < row["mid"]]
            # What the same commit takes may come in any order.
            if before and not _taken_together(of, row, queue[min(before)].row):
                found.violated("a later message was received first", queue[min(before)], change)


def _taken_together(of: Evidence, later: Row, earlier: Row) -> bool:
    final = of.final("message").get((earlier["dest"], earlier["mid"]))
    if final is None or final["taken_seq"] is None:
        return False
    return (final["taken_run"], final["taken_seq"]) < (later["taken_run"], later["taken_seq"])


@invariant("I26")
def taking_is_recording(of: Evidence, found: Findings) -> None:
    """A message is marked as received in the very commit that records its receipt; a timeout takes none."""
    receipts: dict[tuple[Any, ...], Change] = {}
    for (id, run), changes in of.records.items():
        for change in changes:
            if kind_of(change.row) is Kind.RECV:
                receipts[id, run, change.row["seq"]] = change
    taken: dict[tuple[Any, ...], Change] = {}
    for change in of.of("message"):
        row = change.row
        if change.op != "update" or not row["taken_seq"]:  # 0: excluded by a reset
            continue
        found.look()
        place = (row["dest"], row["taken_run"], row["taken_seq"])
        receipt = receipts.get(place)
        if place in taken and taken[place].row["mid"] != row["mid"]:
            found.violated("one receive took two messages", taken[place], change)
        taken[place] = change
        if receipt is None or outcome_of(receipt.row).name != "VALUE":
            found.violated("a message was taken without a record of it", change)
        elif receipt.tx != change.tx:
            found.violated("taking a message and recording it are two commits", receipt, change)
        elif receipt.row["data"] != row["data"]:
            found.violated("another message was recorded than taken", receipt, change)
    for place, receipt in receipts.items():
        if place[2] < of.kept.get((place[0], place[1]), 0):
            continue  # what became of it is I56, or it is a fork's, whose source has the message
        if (place[0], receipt.row["data"]) in of.lost_mail:
            continue
        if outcome_of(receipt.row).name == "VALUE" and place not in taken:
            found.violated("a receipt is recorded, and no message was taken", receipt)


@invariant("I27")
def nobody_home_is_said(of: Evidence, found: Findings) -> None:
    """A message to nobody is refused, never lost without a word."""
    for asked, answer in of.answers:
        if asked["op"] == "send":
            found.look()
            if answer["type"] == "ok" and asked["w"] not in of.workflows:
                found.violated(f"a message to {asked['w']}, which never was, was acknowledged", asked, answer)
            if answer["type"] == "fail" and answer.get("error") not in ("WorkflowNotFound", "WorkflowClosed"):
                found.violated("a send failed in a way that is not defined", asked, answer)


@invariant("I28")
def events_are_registers(of: Evidence, found: Findings) -> None:
    """An event that a client read was its value at some moment of the call."""
    values: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for change in of.of("event"):
        if change.new is not None:
            place = (change.row["id"], change.row["name"])
            values.setdefault(place, []).append((change.at, msgspec.json.decode(change.new["data"])))
    for asked, answer in of.answers:
        if asked["op"] != "get_event" or answer["type"] != "ok" or answer["value"] is None:
            continue
        found.look()
        history = values.get((asked["w"], asked["args"]), [])
        spans = zip(history, [*history[1:], (1 << 62, None)], strict=False)
        if not any(
            value == answer["value"] and since <= answer["at"] + 2000 and until >= asked["at"] - 2000
            for (since, value), (until, _) in spans
        ):
            found.violated(f"event {asked['args']} of {asked['w']} was never that then: {history}", asked, answer)
