"""What a process has begun: it goes from burst to burst with it, until its end, or its deletion, treats it.

A burst is a run, and a run answers for its own children alone. So the input of the next one names those that are not
known to have ended, each with what the process' end means to it (``on_parent_close``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure.client.line import Line
from perdure.client.questions import OpenOf
from perdure.client.verbs import patiently
from perdure.model.processes import At
from perdure.model.records import Kind, Record, WorkflowRow
from perdure.query.conditions import Fact, OneOf, Query
from perdure.runtime.process_facts import Facts
from perdure.store.asks import Found

MANY = 64  # at so many, and at each doubling of what is left then, those that have ended are left out
PAGE = 500


class Parent(Protocol):
    """What this needs of an execution."""

    children: Mapping[str, str]
    seen_ends: Mapping[str, None]
    inherited: Mapping[str, str]

    def own(self, name: str) -> Any: ...
    def ask(self, question: Any) -> Any: ...


def inherit(execution: Parent, at: At) -> None:
    """Let this run answer for what the bursts before it have begun."""
    if at.children:
        execution.inherited = at.children
        execution.own("children").update(at.children)


def too_many(at: At) -> OpenOf | None:
    """What is to be asked of the database before the list grows on; None: nothing."""
    return OpenOf(tuple(at.children)) if len(at.children) >= max(MANY, 2 * at.kept) else None


def only_open(execution: Parent, at: At, still: Sequence[str]) -> At:
    """The same with the children that are open alone."""
    children = {id: policy for id, policy in at.children.items() if id in still}
    for id in at.children:
        if id not in children:
            execution.own("children").pop(id, None)
    execution.inherited = children
    return msgspec.structs.replace(at, children=children, kept=len(children))


def carried(execution: Parent, at: At) -> At:
    """Where it stands, with those for which the next run answers."""
    children = {
        id: policy for id, policy in execution.children.items() if policy != "abandon" and id not in execution.seen_ends
    }
    parent = at.parent or bool(execution.children)
    return at if (children, parent) == (at.children, at.parent) else msgspec.structs.replace(
        at, children=children, parent=parent
    )  # fmt: skip


def awaited(execution: Parent) -> list[str]:
    """Those whose end the end of the process has to wait for."""
    return [id for id, policy in execution.children.items() if policy == "wait" and id not in execution.seen_ends]


async def with_begun(line: Line, row: WorkflowRow, facts: Facts, history: Sequence[Record]) -> Facts:
    """What is known of an interrupted process, with what its cut off burst has begun."""
    began = [(r.data or b"").decode() for r in history if r.kind is Kind.CHILD and r.data]
    began = [id for id in began if id not in facts.at.children]
    if not began:
        return facts
    rows: Mapping[str, WorkflowRow] = await patiently(line, line.store.rows, began)
    new = {
        id: rows[id].on_parent_close
        for id in began
        if id in rows and rows[id].parent == row.id and rows[id].on_parent_close != "abandon"
    }
    at = msgspec.structs.replace(facts.at, children={**facts.at.children, **new}, parent=True)
    return facts._replace(at=at)


class Family(NamedTuple):
    """All that goes when a process is deleted."""

    ids: tuple[str, ...] = ()  # what it began, then what these have begun, but for what was to be abandoned
    awaited: WorkflowRow | None = None  # one that is open and whose end its parent's end has to wait for


def of_parents(ids: Sequence[str]) -> Query:
    """What these have begun."""
    return Query(condition=OneOf(Fact.PARENT, tuple(sorted(ids))))


async def family(line: Line, id: str) -> Family:
    """Looked for once for each generation."""
    found: dict[str, None] = {}
    generation = [id]
    awaited: WorkflowRow | None = None
    while generation:
        query: Query = of_parents(generation)
        cursor: str | None = None
        generation = list[str]()
        while True:
            page: Found = await patiently(line, partial(line.store.list, query, cursor=cursor, limit=PAGE))
            for row in page.rows:
                if row.on_parent_close == "abandon" or row.id in found or row.id == id:
                    continue
                if row.on_parent_close == "wait" and row.status.open:
                    awaited = row
                found[row.id] = None
                generation.append(row.id)
            cursor = page.cursor
            if cursor is None:
                break
    return Family(tuple(found), awaited)
