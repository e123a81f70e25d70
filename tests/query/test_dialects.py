"""What the two dialects must both say, and the plans of the questions that are asked of many rows."""

from __future__ import annotations

import re

from perdure.query.conditions import Fact
from perdure.store.postgres.search import PostgresSearch
from perdure.store.sqlite.search import SQLiteSearch


def test_each_dialect_gets_each_fact() -> None:
    assert set(PostgresSearch.facts) == set(SQLiteSearch.facts) == set(Fact)
    for search in (PostgresSearch("app", 1), SQLiteSearch("app", 1)):
        assert all("@" not in search.fact(fact) for fact in Fact)


def test_a_statement_has_as_many_parameters_as_values() -> None:
    from perdure.query.read import read_query

    text = "created > now - 1h AND attributes.x > 5 AND executor = a AND duration > 5s ORDER BY duration"
    for search in (PostgresSearch("app", 1), SQLiteSearch("app", 1)):
        sql = search.page(read_query(text), 10, None)
        numbers = {int(n) for n in re.findall(r"[$?](\d+)", sql)}
        assert numbers == set(range(1, len(search.arguments) + 1))
        assert "'app'" not in sql
