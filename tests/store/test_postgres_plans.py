"""Every statement of the Postgres dialect goes by a key or a named index, whatever the size of the tables when it was
planned; and a commit costs as many statements as designed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from perdure.model.records import Outcome
from perdure.model.states import Status
from perdure.model.writes import Close, Park, SetEvent
from perdure.store.postgres import PostgresStore, lone
from perdure.store.postgres.connection import Connection, Link, Statement
from perdure.store.postgres.owned import generated
from perdure.store.postgres.shapes import PARTS, shape
from perdure.store.postgres.text import statements
from perdure.store.tables import LEFT
from tests.store.build import append, close, one, outside, own, record, running, send, start, tok, unit

pytestmark = pytest.mark.postgres

SIZES = [0, 1_000, 200_000] + ([1_000_000] if os.environ.get("PERDURE_TEST_MILLION") else [])
TABLES = {"workflow", "past_run", "payload", "history", "event", "message", "wake", "watch", "stream", "stream_value"}
TABLES |= {"slot", "pace", "dedup", "expiry", "batch", "batch_target", "audit_line"}
LEFT_BY = {table.name: f"{table.name}_pkey" for table in LEFT} | {"watch": "watch_waiter", "dedup": "dedup_id"}
# What a statement may read of a whole app: only what is small by nature, or the head of an ordered index.
OF_THE_APP = {
    ("claim_ready", "wake_pkey"),
    ("poll", "wake_pkey"),
    ("stray_commanded", "wake_pkey"),
    ("app_next", "workflow_pkey"),  # hops from app to app
    ("roll_call", "workflow_open"),  # hops from owner to owner, from version to version
    ("open_work", "workflow_open"),  # the same
    ("held_elsewhere", "workflow_problem"),  # only what is in trouble
    ("version_sample", "workflow_created"),  # the latest, up to a bound
    ("queue_progress", "workflow_open"),  # counted for operators, up to a bound
    ("slot_fill", "workflow_open"),  # when a queue gets its first limit
    ("poll", "expiry_pkey"),  # the head of an ordered index
    ("purge_past", "past_run_pkey"),  # a page, in order
    ("purge_requests", "request_pkey"),  # small by nature
    ("mark_list", "upkeep_pkey"),
    *((f"left_page:{table.name}", LEFT_BY[table.name]) for table in LEFT),  # pages
    ("size_kinds", "workflow_pkey"),  # what only a person asks for, and counts
    ("size_kinds", "workflow_created"),
    ("size_past", "past_run_pkey"),
    ("watch_remark", "watch_pkey"),  # parked workflows; once, at the end of a copy
}

FILL = """
insert into perdure.workflow (app, id, run, lineage, name, version, status, claim, owner, until, created, updated,
    closed, reason, fingerprint, nonce)
select 'app', 'w' || i, 1, '', 'flow', 'v', s, 'c', case s when 2 then 'o'::bytea end,
    case when s in (0, 1) or s = 3 and i % 20 = 3 then i end, i, i,
    case when s >= 5 then i end, case when s = 4 then 'paused' end, '', ''
from (select i, (array[5, 5, 5, 5, 5, 2, 3, 3, 1, 4])[i % 10 + 1] as s from generate_series(1, {n}) i) x;
insert into perdure.payload (app, id, run, input) select 'app', 'w' || i, 1, '1' from generate_series(1, {n}) i;
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, attempt, shown, version,
    nonce)
select 'app', 'w' || i % ({n} / 4), 1, i / ({n} / 4) + 1, '1', 1, 's', 1, '', 1, 1, '', 'v', ''
from generate_series(1, {n}) i;
insert into perdure.message (app, dest, mid, topic, data, sender, at, taken_seq)
select 'app', 'w' || i, int8send(i), 't', '1', '', 1, case when i % 10 > 0 then 1 end from generate_series(1, {n}, 4) i;
insert into perdure.event (app, id, run, name, data, at)
select 'app', 'w' || i, 1, 'e', '1', 1 from generate_series(1, {n}, 10) i;
insert into perdure.past_run select w.* from perdure.workflow w where created % 50 = 0;
insert into perdure.watch (app, target, waiter) select 'app', 'w' || i, 'w' || i + 1 from generate_series(1, {n}, 40) i;
insert into perdure.workflow (app, id, run, lineage, name, version, status, until, created, updated, fingerprint, nonce,
    queue, partition, lane, expires)
select 'app', 'l' || i, 1, '', 'flow', 'v', 1, i, i, i, '', '', 'q', p, 'q' || chr(31) || p || chr(31) || '80000000', i
from (select i, (i % 50)::text as p from generate_series(1, {n}, 4) i) x;
insert into perdure.queue (app, name, changed, revision) select 'app', 'q' || i, 1, 1 from generate_series(1, 30) i;
insert into perdure.slot (app, queue, id) select 'app', 'q' || i % 30, 'w' || i from generate_series(1, {n}, 5) i;
insert into perdure.pace (app, queue, partition, at, n)
select 'app', 'q' || i % 30, '', i, 1 from generate_series(1, {n}, 5) i;
insert into perdure.dedup (app, queue, key, id) select 'app', 'q' || i % 30, 'k' || i, 'w' || i
from generate_series(1, {n}, 5) i;
insert into perdure.expiry (app, at, id) select 'app', i, 'l' || i from generate_series(1, {n}, 4) i;
insert into perdure.stream (app, id, run, name, chain, next, nonce, at)
select 'app', 'w' || i, 1, 's', 1, 4, '', 1 from generate_series(1, {n}, 10) i;
insert into perdure.stream_value (app, id, chain, name, place, run, path, n, data, at)
select 'app', 'w' || i, 1, 's', p, 1, '1', p, '1', 1 from generate_series(1, {n}, 10) i, generate_series(0, 3) p;
insert into perdure.wake (app, dest, nonce) select 'app', 'w' || i, int8send(i) from generate_series(1, {n}, 200) i;
insert into perdure.problem (app, id, run, kind, path, version, name, text, attempt, first, last, nonce)
select 'app', 'w' || i, 1, 'step_failed', '1', 'v', 's', '', 1, i, i, '' from generate_series(1, {n}, 20) i;
update perdure.workflow set problem = 'step_failed' where created % 20 = 1;
insert into perdure.batch (app, key, verb, options, query, by, reason, state, created, updated, closed, total, done,
    skipped, failed, until, next, nonce)
select 'app', 'k' || i, 'v', '', '', '', '', 1, i, i, i, 1, 1, 0, 0, 0, 0, '' from generate_series(1, {n}, 50) i;
insert into perdure.batch_target (app, batch, id, run, state)
select 'app', 'k' || i % 5, 'w' || i, 1, i % 4 from generate_series(1, {n}) i;
insert into perdure.audit_line (app, batch, id, nonce, run, at, verb, by, reason, before, after)
select 'app', 'k' || i % 5, 'w' || i, int8send(i), 1, 1, '', '', '', '', '' from generate_series(1, {n}) i;
"""


def every_statement() -> dict[str, str]:
    named = {n: sql for n, sql in statements("perdure").items() if not n.startswith(("part_", "answer_"))}
    alone = {f"alone:{form}": lone.statement(form, "perdure")[0] for form in lone.PARTS}
    return named | alone | dict(generated("perdure")) | {f"commit:{name}": shape(name, "perdure").sql for name in PARTS}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def complaint(name: str, node: dict[str, Any]) -> str | None:
    """What is wrong with a node of a plan."""
    kind, table = node["Node Type"], node.get("Relation Name")
    if kind == "Seq Scan" and table in TABLES:
        return f"reads all of {table}"
    index = node.get("Index Name")
    if index is None or kind not in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}:
        return None
    if index == "workflow_kind" and name != "release_held":
        return "takes the index of queries, which grows with all that ever was"
    if index == "workflow_open" and name == "release_held":
        return "goes through all waits without a time"
    if index == "workflow_parent" and name != "wake_children":
        return "takes the index of children"
    if index == "workflow_problem" and name not in {"held_due", "held_elsewhere"}:
        return "takes the index of what is in trouble"
    condition = node.get("Index Cond", "")
    compared = set(re.findall(r"\b(?:\w+\.)?(\w+) (?:=|<=|IS NULL)", condition))
    # As few as executors, deploys, nights, orders of operators, tables.
    few = ("incarnation", "version", "routing", "deployment", "queue", "schedule", "batch_pkey", "pg_")
    if index.startswith(few):
        return None
    if compared <= {"app"} and (name, index) not in OF_THE_APP:
        return f"reads all of an app through {index}: {condition or 'no condition'}"
    return None


@pytest.fixture
async def store(bare_postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(bare_postgres_url, "app")
    await made.open()
    await made.migrate()
    yield made
    await made.close()


async def plans(conn: Connection) -> dict[str, list[dict[str, Any]]]:
    """The generic plan of every statement, as our connections make it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (name, sql) in enumerate(every_statement().items()):
        count = max([int(n) for n in re.findall(r"\$(\d+)", sql)], default=0)
        await conn.execute(f"prepare explained_{number} as {sql}")
        nulls = f"({', '.join(['null'] * count)})" if count else ""
        text = await conn.fetchval(f"explain (format json) execute explained_{number}{nulls}")
        await conn.execute(f"deallocate explained_{number}")
        found[name] = list(nodes(json.loads(text)[0]["Plan"]))
    return found


def test_time_is_a_parameter_or_read_once_for_a_statement() -> None:
    """A volatile clock is asked for every row, and no index can be searched by it."""
    wrong: list[str] = []
    for name, sql in every_statement().items():
        if re.search(r"\b(clock_timestamp|now|timeofday)\s*\(|current_timestamp|localtimestamp", sql):
            wrong.append(f"{name}: a clock that is not the statement's")
        given = re.findall(r"coalesce\(\$\d+::bigint, \(extract\(epoch from statement_timestamp\(\)\)", sql)
        if name != "clock" and sql.count("statement_timestamp") != len(given):
            wrong.append(f"{name}: the time cannot be given")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", SIZES)
async def test_every_statement_goes_by_key(store: PostgresStore, size: int) -> None:
    async def look(conn: Connection) -> list[str]:
        wrong: list[str] = []
        if size:
            await conn.execute("set statement_timeout = 0")
            for part in FILL.format(n=size).split(";\n"):
                if part.strip():
                    await conn.execute(part)
        for analyzed in (False, True):
            if analyzed:
                await conn.execute("analyze")
            for name, found in (await plans(conn)).items():
                when = f"{name} at {size} rows{', analyzed' if analyzed else ''}"
                wrong += [f"{when}: {said}" for node in found if (said := complaint(name, node))]
        return wrong

    wrong = await store._reading.raw(look)
    assert not wrong, "\n".join(wrong)


async def test_what_runs_here_is_compared_with_what_it_owns_in_one_pass(store: PostgresStore) -> None:
    """Also where the statistics are of a time when nobody ran anything, and tell of no owner."""
    n = 2000
    finished = "select 'app', 'd' || i, 1, '', 'f', 'v', 5, null, null, i, i, '', '', i from generate_series(1, 5000) i"
    runs = f"select 'app', 'w' || i, 1, '', 'f', 'v', 2, 'c', 'o', i, i, '', '', null from generate_series(1, {n}) i"
    ids, ones, claims = (
        f"'{{{','.join(values)}}}'" for values in ([f"w{i}" for i in range(2, n + 1)], ["1"] * (n - 1), ["c"] * (n - 1))
    )  # all but the first

    async def look(conn: Connection) -> dict[str, Any]:
        into = "insert into perdure.workflow (app, id, run, lineage, name, version, status, claim, owner, created, "
        await conn.execute(f"{into}updated, fingerprint, nonce, closed) {finished}")
        await conn.execute("analyze perdure.workflow")
        await conn.execute(f"{into}updated, fingerprint, nonce, closed) {runs}")
        await conn.execute(f"prepare looked as {statements('perdure')['poll']}")
        asked = f"'app', 1, 'o', {ids}, {ones}, true, 'v', '', '', 1000, {claims}"
        text = await conn.fetchval(f"explain (analyze, format json) execute looked({asked})")
        found: dict[str, Any] = json.loads(text)[0]["Plan"]
        return found

    plan = await store._reading.raw(look)
    made = ("Actual Rows", "Rows Removed by Join Filter", "Rows Removed by Filter")
    rows = sum(node.get(key, 0) * node["Actual Loops"] for node in nodes(plan) for key in made)
    assert n < rows < 20 * n, rows


async def test_the_hot_row_has_four_indexes_one_of_children_and_one_of_what_is_in_trouble(store: PostgresStore) -> None:
    sql = "select indexname from pg_indexes where schemaname = 'perdure' and tablename = 'workflow' order by 1"
    found = await store._reading.raw(lambda conn: conn.fetch(sql))
    assert [row[0] for row in found] == [
        "workflow_created", "workflow_kind", "workflow_open", "workflow_parent", "workflow_pkey", "workflow_problem",
    ]  # fmt: skip


class Counter:
    """Counts what a store's writer sends: every statement is fetched by its text, prepared or not."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def shapes(self) -> list[str]:
        names = {shape(name, "perdure").sql: name for name in PARTS}
        names |= {lone.statement(form, "perdure")[0]: f"alone: {form}" for form in lone.PARTS}
        names[statements("perdure")["checkpoint"]] = "checkpoint"
        taken = [names.get(sql, sql) for sql in self.sent]
        self.sent.clear()
        return taken


@pytest.fixture
def counter(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> Counter:
    made = Counter()
    prepare = Link.prepare

    async def counted(link: Link, sql: str) -> Statement:
        if link is store._writing:
            made.sent.append(sql)
        return await prepare(link, sql)

    monkeypatch.setattr(Link, "prepare", counted)
    return made


async def test_each_batch_takes_the_smallest_shape_in_one_statement(store: PostgresStore, counter: Counter) -> None:
    claim = await running(store, "a", "b", "c", "d")
    assert counter.shapes() == ["starts"]
    await one(store, unit("a", claim, records=[record(1)]))
    assert counter.shapes() == ["checkpoint"]
    await one(store, unit("a", claim, records=[record(2), record(3)]))
    assert counter.shapes() == ["records"]
    await store.commit([unit("a", claim, records=[record(4)]), unit("b", claim)])
    assert counter.shapes() == ["records"]
    await one(store, unit("a", claim, records=[record(5)], change=close(parent="b")))
    assert counter.shapes() == ["changes"]  # the parent is told
    await one(store, unit("b", claim, change=Park(None, "")))
    assert counter.shapes() == ["changes"]
    await one(store, outside(children=[start("q"), start("r")]))
    assert counter.shapes() == ["starts"]
    await one(store, own("e", tok("claim"), change=close()))
    assert counter.shapes() == ["starts_closed"]
    begun, ended = own("f", tok("claim")), unit("c", claim, records=[record(n) for n in (1, 2, 3)], change=close())
    await store.commit([begun, ended])
    assert counter.shapes() == ["mixed"]
    await one(store, unit("d", claim, records=[record(1)], events=[SetEvent("e", b"1")], sends=[send("q")]))
    assert counter.shapes() == ["all"]
    await one(store, own("g", tok("claim"), records=[record(1)]))
    assert counter.shapes() == ["all"]
    await one(store, unit("d", claim, records=[record(2)], appends=[append(1)]))
    assert counter.shapes() == ["appends"]
    await one(store, unit("d", claim, appends=[append(2, n=1)], change=Park(None, "")))
    assert counter.shapes() == ["all_appends"]


async def test_a_one_step_workflow_costs_two_statements(store: PostgresStore, counter: Counter) -> None:
    claim = tok("claim")
    await one(store, own("w", claim))
    end = Close(Status.COMPLETED, Outcome.VALUE, b"1", tok("wake"))
    await one(store, unit("w", claim, records=[record(1)], change=end))
    assert counter.shapes() == ["alone: start", "alone: end"]


async def test_a_refused_unit_costs_one_statement_more(store: PostgresStore, counter: Counter) -> None:
    claim = await running(store, "a", "b")
    counter.shapes()
    receipt = await store.commit([unit("a", claim, records=[record(1)]), unit("b", tok("stale"), records=[record(1)])])
    assert [v.applied for v in receipt.verdicts] == [True, False]
    assert counter.shapes() == ["records", "records"]
