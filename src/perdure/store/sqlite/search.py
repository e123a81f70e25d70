"""How SQLite gets each fact, and what it says differently of a query."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from perdure.model.states import Status
from perdure.query.conditions import AllOf, Condition, Fact, Kind, OneOf, Present, Query, Sign, StartsWith
from perdure.store.asks import Found
from perdure.store.search import Search, found
from perdure.store.sqlite import rows
from perdure.store.sqlite.driver import Connection, Row

ROW = """c.id, c.run, c.lineage, c.name, c.status, c.version, c.created, c.updated, c.reason, c.detail, c.claim,
    c.owner, c.epoch, c.attempts, max(c.last_seq, coalesce((select h.seq from history h
        where h.app = c.app and h.id = c.id and h.run = c.run order by h.seq desc limit 1), 0)),
    c.until, c.deadline, c.timeout, c.started, c.closed, c.cancel, c.parent, c.parent_run, c.parent_path,
    c.on_parent_close, c.queue, c.priority, c.fingerprint, c.attributes, c.intents, c.cause,
    c.versioning, c.partition, c.lane, c.expires, c.pause, c.problem, c.override"""

# A failure's JSON begins with its class, `{"type":"module:Qualname"`; the rest may be long, and is not parsed.
_ERROR = """(select substr(n, instr(n, ':') + 1) from (
        select substr(s, 1, instr(s, '"') - 1) as n from (
            select substr(cast(p.output as text), 10, 1000) as s from payload p
            where p.app = c.app and p.id = c.id and p.run = c.run and p.outcome = 2
                and substr(cast(p.output as text), 1, 9) = '{"type":"')))"""

# Attributes are JSON in a blob, which SQLite would take for JSON of its own form.
_EACH = """exists (
        select 1 from json_each(cast(c.attributes as text)) j
        where instr(cast(c.attributes as text), '\\u0000') = 0 and j.key = {name} and {condition})"""


class SQLiteSearch(Search):
    """One statement of this dialect in the making."""

    row = ROW
    facts: Mapping[Fact, str] = {  # type: ignore[misc]  # a class variable here, too
        **{fact: f"c.{fact}" for fact in Fact},
        Fact.EXECUTOR: "(select i.executor from incarnation i where i.id = c.owner)",
        Fact.DURATION: "(coalesce(c.closed, @now) - c.started)",
        Fact.PROBLEM: "(case when c.status < 5 then c.problem end)",
        Fact.ERROR: _ERROR,
    }

    def give(self, value: Any, kind: Kind) -> str:
        self.arguments.append(value)
        return f"?{len(self.arguments)}"

    def among(self, expression: str, values: Sequence[Any], kind: Kind) -> str:
        return f"{expression} in (select value from json_each({self.give(json.dumps(values), Kind.TEXT)}))"

    def clock(self, given: int | None) -> str:
        assert given is not None
        return self.give(given, Kind.TIME)

    def table(self, name: str, query: Query, *, walks: bool) -> str:
        plain = super().table(name, query, walks=walks)
        way = _way_in(query, walks=walks) if name == "workflow" else None
        return plain if way is None else plain.replace(" c where ", f" c indexed by {way} where ", 1)

    def order(self, query: Query) -> str:
        """By chosen ids: not as the index of lists has it, which would be read to its end."""
        return f"+{super().order(query)}" if Fact.ID in _anchors(query.condition) else super().order(query)

    def placed(self, sql: str) -> str:
        return sql.replace("@", "")

    def attribute_among(self, name: str, values: Sequence[str | float | bool]) -> str:
        return self._each(name, " or ".join(self._equals(value) for value in values))

    def attribute_compares(self, name: str, sign: Sign, value: str | float) -> str:
        types = "j.type = 'text'" if isinstance(value, str) else "j.type in ('integer', 'real')"
        return self._each(name, f"{types} and j.value {sign} {self.give(value, Kind.ANY)}")

    def attribute_present(self, name: str) -> str:
        return self._each(name, "j.type <> 'null'")

    def attribute_group(self, name: str) -> str:
        given = self.give(name, Kind.TEXT)
        return f"""(select case when j.type in ('true', 'false') then j.type else json_quote(j.value) end
            from json_each(cast(c.attributes as text)) j
            where instr(cast(c.attributes as text), '\\u0000') = 0 and j.key = {given}
                and j.type in ('text', 'integer', 'real', 'true', 'false'))"""

    def _equals(self, value: str | float | bool) -> str:
        if isinstance(value, bool):
            return f"j.type = '{'true' if value else 'false'}'"
        types = "j.type = 'text'" if isinstance(value, str) else "j.type in ('integer', 'real')"
        return f"({types} and j.value = {self.give(value, Kind.ANY)})"

    def _each(self, name: str, condition: str) -> str:
        return _EACH.format(name=self.give(name, Kind.TEXT), condition=f"({condition})")


def _way_in(query: Query, *, walks: bool) -> str | None:
    """The index to begin with. This planner has no statistics: to it an app is ten rows, and any way as good.

    Who reads in the order of creation finds a page of what is common soon. What has not gone well is rare.
    """
    anchors = _anchors(query.condition)
    if Fact.ID in anchors:
        return None
    if Fact.PARENT in anchors:
        return "workflow_parent"
    if Fact.PROBLEM in anchors:
        return "workflow_problem"
    if Fact.VERSION in anchors and (not walks or Status.COMPLETED not in anchors.get(Fact.STATUS, Status)):
        return "workflow_kind"
    return "workflow_open" if Fact.EXECUTOR in anchors else None


def _anchors(condition: Condition) -> dict[Fact, Collection[Any]]:
    """The facts that must be one of some values, or begin so, and these values."""
    if isinstance(condition, AllOf):
        return {fact: values for part in condition.parts for fact, values in _anchors(part).items()}
    if isinstance(condition, Present) and condition.subject is Fact.PROBLEM:
        return {Fact.PROBLEM: ()}
    if isinstance(condition, OneOf | StartsWith) and isinstance(condition.subject, Fact):
        values = condition.values if isinstance(condition, OneOf) else (condition.prefix,)
        if values and (isinstance(condition, OneOf) or condition.subject is Fact.ID):
            return {condition.subject: values}
    return {}


def page(app: str, query: Query, limit: int, cursor: str | None, now: int) -> Callable[[Connection], Found]:
    """The job that reads a page of a listing; a cursor that is of another is refused here, not in its thread."""
    search = SQLiteSearch(app, now)
    sql = search.page(query, limit, cursor)

    def read(conn: Connection) -> Found:
        raw = conn.execute(sql, tuple(search.arguments)).fetchall()
        return found([rows.workflow(r) for r in raw], raw, query, limit)

    return read


def count(app: str, query: Query, now: int) -> Callable[[Connection], list[Row]]:
    """The job that reads counts."""
    search = SQLiteSearch(app, now)
    sql = search.count(query)
    return lambda conn: conn.execute(sql, tuple(search.arguments)).fetchall()
