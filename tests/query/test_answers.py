"""One text, three answers: SQLite, Postgres and Python give the same set, order and counts. Chance writes the texts."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from perdure.model.records import WorkflowRow
from perdure.model.states import Reason, Status, Versioning
from perdure.query.conditions import Query
from perdure.query.evaluate import Known, matches, place_of, value_of
from perdure.query.fields import FIELDS, SIGNS, Field, Reading
from perdure.query.problems import WRITTEN
from perdure.query.read import read_query
from perdure.store.base import Store
from tests.query.rows import ERRORS, NAMES, QUEUES, SECOND, VERSIONS, WORDS, Put, T, put, some_rows

SEEDS = [int(seed) for seed in os.environ.get("PERDURE_SEED", "1,2,3").split(",")]
QUERIES = int(os.environ.get("PERDURE_TEST_STEPS", "100"))
ROWS = 80
PREFIXES = ["", "o", "order", "z\U0001f600", "v1", "\uffff", "x"]


class Author:
    """Writes queries by chance."""

    def __init__(self, rng: random.Random, rows: list[WorkflowRow]) -> None:
        self.rng = rng
        self.ids = [row.id for row in rows]

    def text(self) -> str:
        return self.condition(self.rng.choice([0, 0, 1, 2, 3]))

    def condition(self, depth: int) -> str:
        if depth == 0:
            return self.comparison()
        parts = [self.condition(depth - 1) for _ in range(self.rng.choice([1, 2, 2, 3]))]
        joined = self.rng.choice([" AND ", " OR ", " or "]).join(parts)
        return self.rng.choice([f"({joined})", f"NOT ({joined})", f"({joined})"])

    def name(self, field: Field) -> str:
        name = self.rng.choice([field.name, *field.aliases])
        return self.rng.choice([name, name.upper(), f"Temporal{name}"])

    def comparison(self) -> str:
        if self.rng.random() < 0.25:
            subject = self.rng.choice(["x", "y", "nothing", '"Odd name"', "'q\"q'", '"a.b"'])
            name, reading = f"attributes.{subject}", Reading.ANY
        else:
            field = self.rng.choice(FIELDS)
            name, reading = self.name(field), field.reading
        sign = self.rng.choice(sorted(SIGNS[reading]))
        some = [self.value(name, reading) for _ in range(3)]
        no = self.rng.choice(["", "NOT "])
        match sign:
            case "=":
                return f"{name} {self.rng.choice(['=', '!=', '<>'])} {some[0]}"
            case "IN":
                return f"{name} {no}in ({', '.join(some)})"
            case "NULL":
                return f"{name} IS {no}NULL"
            case "STARTS_WITH":
                return f"{name} {no}STARTS_WITH {self.quoted(self.rng.choice(PREFIXES))}"
            case "BETWEEN":
                low, high = (self.value(name, reading, ordered=True) for _ in range(2))
                return f"{name} {no}between {low} AND {high}"
            case _:
                return f"{name} {sign} {self.value(name, reading, ordered=True)}"

    def quoted(self, text: str) -> str:
        quote = self.rng.choice("'\"")
        return quote + text.replace(quote, quote * 2) + quote

    def value(self, name: str, reading: Reading, *, ordered: bool = False) -> str:
        rng, lower = self.rng, name.lower().removeprefix("temporal")
        match reading:
            case Reading.TEXT:
                known: list[Any] = {
                    "id": self.ids, "workflowid": self.ids, "version": VERSIONS, "queue": QUEUES, "error": ERRORS,
                    "executor": ["alpha", "beta"], "partition": ["", "eu"],
                }.get(lower, NAMES)  # fmt: skip
                return self.quoted(rng.choice([*known, *WORDS]) or "mail")
            case Reading.WHOLE:
                return str(rng.randrange(-2, 4))
            case Reading.TIME:
                ago = rng.choice(["now", "now - 15s", "now - 20s", "now-18s", "now + 1h"])
                return rng.choice(
                    [ago, f"'{_iso(T + rng.randrange(9) * SECOND)}'", _iso(T + rng.randrange(9) * SECOND)]
                )
            case Reading.SPAN:
                return rng.choice(["0s", "2s", "4s", "'3s'", "17s", "1m", "1h30m"])
            case Reading.STATUS | Reading.SEED_STATUS:
                chosen = rng.choice(["open", "closed", "Running", "Canceled", "TimedOut", *map(str, Status)])
                return self.quoted(chosen) if rng.random() < 0.5 else chosen
            case Reading.VERSION_OF_APP:
                return self.quoted(f"app:{rng.choice(VERSIONS)}")
            case Reading.REASON:
                return rng.choice(list(map(str, Reason)))
            case Reading.PROBLEM:
                return self.quoted(rng.choice(list(WRITTEN)))
            case Reading.VERSIONING:
                return rng.choice(["Pinned", "AutoUpgrade", *map(str, Versioning)])
            case Reading.ANY:
                words = [
                    "'x'",
                    '"X"',
                    "''",
                    "'é'",
                    "'1'",
                    "1",
                    "1.0",
                    "0.1",
                    "-3",
                    str(2**53),
                    str(2**53 + 1),
                    "1e22",
                    "2",
                ]
                return rng.choice(words if ordered else [*words, "true", "false"])


def _iso(at: int) -> str:
    from perdure.model.info import to_datetime

    return to_datetime(at).isoformat().replace("+00:00", "Z")


async def listed(store: Store, query: Query, now: int, size: int) -> list[tuple[str, int]]:
    """The whole of a listing, by pages."""
    keys: list[tuple[str, int]] = []
    cursor = None
    while True:
        found = await store.list(query, limit=size, cursor=cursor, now=now)
        assert len(found.rows) <= size
        keys += [tuple(row.key) for row in found.rows]
        cursor = found.cursor
        if cursor is None:
            return keys


def expected(there: Put, query: Query) -> list[WorkflowRow]:
    rows = [*there.rows, *(there.past if query.all_runs else ())]
    chosen = [row for row in rows if matches(query.condition, row, there.known)]
    return sorted(chosen, key=lambda row: place_of(query.order, row, there.known))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_query_means_the_same_to_the_store_and_to_python(store: Store, seed: int) -> None:
    print(f"PERDURE_SEED={seed}")
    rng = random.Random(seed)
    there = some_rows(rng, ROWS)
    await put(store, there.rows, there.past, there.known.errors)
    author = Author(rng, there.rows)
    orders = [field for field in FIELDS if field.sorts]
    sizes: Counter[str] = Counter()
    for _ in range(QUERIES):
        text = author.text()
        if rng.random() < 0.7:
            text += f" ORDER BY {author.name(rng.choice(orders))}{rng.choice(['', ' ASC', ' DESC', ' desc'])}"
        query = read_query(text, store.app, all_runs=rng.random() < 0.4)
        rows = expected(there, query)
        wanted = [tuple(row.key) for row in rows]
        at = f"PERDURE_SEED={seed}: {text!r}, all runs: {query.all_runs}"
        assert await listed(store, query, there.known.now, rng.choice([3, 11, 1000])) == wanted, at
        sizes["none" if not rows else "all" if len(rows) >= ROWS else "some"] += 1
    assert sizes["some"] > QUERIES / 3, sizes


GROUPABLE = ["status", "type", "version", "queue", "partition", "priority", "executor", "parent", "reason", "problem",
             "attempts", "versioning", "error", "run", "attributes.x", "attributes.'Odd name'"]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_count_means_the_same_to_the_store_and_to_python(store: Store, seed: int) -> None:
    print(f"PERDURE_SEED={seed}")
    rng = random.Random(seed)
    there = some_rows(rng, ROWS)
    await put(store, there.rows, there.past, there.known.errors)
    author = Author(rng, there.rows)
    for _ in range(QUERIES // 3):
        text = author.text()
        plain = read_query(text, store.app, use="count", all_runs=rng.random() < 0.4)
        rows = expected(there, plain)
        at = f"PERDURE_SEED={seed}: {text!r}"
        assert [c.total for c in await store.count(plain, now=there.known.now)] == [len(rows)], at
        names = rng.sample(GROUPABLE, rng.choice([1, 1, 2, 3]))
        grouped = read_query(f"{text} GROUP BY {', '.join(names)}", store.app, use="count", all_runs=plain.all_runs)
        got = await store.count(grouped, now=there.known.now)
        sums = Counter(
            tuple(marked(shown(value_of(subject, row, there.known))) for subject in grouped.groups) for row in rows
        )
        assert {tuple(map(marked, values)): count for values, count in got} == sums, f"{at} {names}"
        assert [one.total for one in got] == sorted((one.total for one in got), reverse=True), at


def shown(value: Any) -> Any:
    return None if isinstance(value, list | dict) else value


def marked(value: Any) -> Any:
    """True is not 1."""
    return (isinstance(value, bool), str(value) if isinstance(value, str) else value)


async def test_not_is_the_rest(store: Store) -> None:
    """Whatever is said of a set, each workflow is in it or in its complement, never in neither."""
    rng = random.Random(5)
    there = some_rows(rng, 60)
    await put(store, there.rows, there.past, there.known.errors)
    author = Author(rng, there.rows)
    for _ in range(60):
        text = author.text()
        counts = [
            (await store.count(read_query(asked, store.app), now=there.known.now))[0].total
            for asked in (text, f"NOT ({text})")
        ]
        assert sum(counts) == 60, text


def test_python_knows_its_row() -> None:
    row = some_rows(random.Random(1), 1).rows[0]
    assert matches(read_query(f"id = '{row.id.replace(chr(39), chr(39) * 2)}'").condition, row, Known(now=T))
