"""How Postgres gets each fact, and what it says differently of a query; on a connection of its own.

A question of a person's may take long, and its plan should know its values: so it has neither the connection that
claims and renews leases, nor the settings that pin the plans of what is asked all the time. The connection is made for
the first question and let go when none has come for a while.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from perdure.query.conditions import Fact, Kind, Query, Sign
from perdure.store.asks import Counted, Found
from perdure.store.postgres import rows
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import ANSWER_SECONDS, SETTINGS, Connection, Transaction
from perdure.store.postgres.occasional import Occasional
from perdure.store.postgres.rows import ROW
from perdure.store.postgres.text import placed
from perdure.store.search import Search, counted, found

SEARCH_SETTINGS = {**SETTINGS, "plan_cache_mode": "force_custom_plan", "enable_seqscan": "on"}

# A failure's JSON begins with its class, `{"type":"module:Qualname"`; the rest may be long, and is not parsed.
_ERROR = """(select split_part(split_part(left(p.output, 1000), '"', 4), ':', 2) from perdure.payload p
        where p.app = c.app and p.id = c.id and p.run = c.run and p.outcome = 2
            and left(p.output, 9) = '{"type":"')"""

# Text that holds a zero character is none for this database: one such row must not end the search of all.
_ATTRIBUTE = "(case when strpos(c.attributes, '\\u0000') = 0 then c.attributes::jsonb -> {name} end)"
_BY_CODE_POINT = frozenset({Fact.ID, Fact.NAME, Fact.PARENT, Fact.PARTITION})  # columns that are declared so

# As the index of lists says, of which this is always true. Said only for it: a count by another need not see the row.
_LISTED = "c.created >= 0"

_TYPES = {Kind.TEXT: "text", Kind.WHOLE: "bigint", Kind.TIME: "bigint", Kind.SPAN: "bigint"}


class PostgresSearch(Search):
    """One statement of this dialect in the making."""

    row = ROW
    facts: Mapping[Fact, str] = {  # type: ignore[misc]  # a class variable here, too
        **{fact: f"c.{fact}" for fact in Fact},
        Fact.EXECUTOR: "(select i.executor from perdure.incarnation i where i.id = c.owner)",
        Fact.DURATION: "(coalesce(c.closed, @now) - c.started)",
        Fact.PROBLEM: "(case when c.status < 5 then c.problem end)",
        Fact.ERROR: _ERROR,
    }

    def __init__(self, app: str, now: int | None, schema: str = "perdure") -> None:
        super().__init__(app, now)
        self._schema = schema

    def give(self, value: Any, kind: Kind) -> str:
        return self._give(value, _TYPES[kind])

    def among(self, expression: str, values: Sequence[Any], kind: Kind) -> str:
        return f"{expression} = any({self._give(list(values), _TYPES[kind] + '[]')})"

    def clock(self, given: int | None) -> str:
        now = self._give(given, "bigint")
        return f"coalesce({now}, (extract(epoch from statement_timestamp()) * 1000000)::bigint)"

    def ordered(self, fact: Fact) -> str:
        sql = self.fact(fact)
        return f'({sql} collate "C")' if fact.kind is Kind.TEXT and fact not in _BY_CODE_POINT else sql

    def table(self, name: str, query: Query, *, walks: bool) -> str:
        plain = f"perdure.{super().table(name, query, walks=walks)}"
        return f"{plain} and {_LISTED}" if walks else plain

    def beside(self, fact: Fact, condition: str) -> str:
        return f"({_LISTED} and {condition})" if fact is Fact.CREATED else super().beside(fact, condition)

    def frozen(self, query: Query, batch: str, most: int) -> str:
        """The same, and how many they are."""
        return f"with t as ({super().frozen(query, batch, most)} returning 1) select count(*) from t"

    def placed(self, sql: str) -> str:
        return placed(sql.replace("@", "perdure."), self._schema)

    def attribute_among(self, name: str, values: Sequence[str | float | bool]) -> str:
        return f"{self._attribute(name)} = any({self._give([json.dumps(value) for value in values], 'jsonb[]')})"

    def attribute_compares(self, name: str, sign: Sign, value: str | float) -> str:
        found = self._attribute(name)
        if isinstance(value, str):
            text = f"""(case jsonb_typeof({found}) when 'string' then {found} #>> '{{}}' end collate "C")"""
            return f"{text} {sign} {self._give(value, 'text')}"
        number = f"(case jsonb_typeof({found}) when 'number' then ({found} #>> '{{}}')::numeric end)"
        return f"{number} {sign} {self._give(Decimal(repr(value)), 'numeric')}"

    def attribute_present(self, name: str) -> str:
        return f"jsonb_typeof({self._attribute(name)}) <> 'null'"

    def attribute_group(self, name: str) -> str:
        found = self._attribute(name)
        return f"(case when jsonb_typeof({found}) in ('string', 'number', 'boolean') then {found} end)"

    def _attribute(self, name: str) -> str:
        return _ATTRIBUTE.format(name=self._give(name, "text"))

    def _give(self, value: Any, type: str) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}::{type}"


class Searching:
    """Answers queries, on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._own = Occasional(url, SEARCH_SETTINGS)

    def open(self) -> None:
        self._own.open()

    async def close(self) -> None:
        await self._own.close()

    async def page(self, place: Place, query: Query, limit: int, cursor: str | None, now: int | None) -> Found:
        """A page of a listing."""
        search = PostgresSearch(place.app, now, place.schema)
        raw = await self._fetch(search.page(query, limit, cursor), search.arguments)
        return found([rows.workflow(r) for r in raw], raw, query, limit)

    async def count(self, place: Place, query: Query, now: int | None) -> list[Counted]:
        """Counts of a query."""
        search = PostgresSearch(place.app, now, place.schema)
        raw = await self._fetch(search.count(query), search.arguments)
        return counted(raw, query, json.loads)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """A transaction about all that a query names."""
        async with self._own.link() as link, link.transaction() as tx:
            yield tx

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        async def ask(conn: Connection) -> list[Any]:
            return await conn.fetch(sql, *arguments, timeout=ANSWER_SECONDS)

        async with self._own.link() as link:
            return await link.raw(ask)
