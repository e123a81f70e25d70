"""The runbook's questions go by an index on Postgres and SQLite, and have a connection of their own."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from perdure.query.conditions import where
from perdure.query.read import read_query
from perdure.store.postgres import PostgresStore, occasional
from perdure.store.postgres.search import PostgresSearch
from perdure.store.sqlite import SQLiteStore
from perdure.store.sqlite.search import SQLiteSearch
from tests.query.rows import T, held, put

# A query, and the index that its count or page must go by.
BY_INDEX = {
    "version = v2 AND ExecutionStatus = 'Running' AND problem IS NOT NULL": "workflow_problem",
    "problem = step_failed": "workflow_problem",
    "problem IN (no_code, turn_timeout) AND status = open": "workflow_problem",
    "ReportedProblems = 'category=WorkflowTaskFailed' AND type = flow-1": "workflow_problem",
    "version = v2 AND (status = failed OR status = timed_out)": "workflow_kind",
    "version = v2 AND status IN (completed, failed) AND type = flow": "workflow_kind",
    "version = v2 AND status = open AND versioning = pinned": "workflow_kind",
    "id IN (w17, w18, nobody)": "(workflow_pkey|PRIMARY KEY)",
    "id STARTS_WITH 'w1999'": "(workflow_pkey|PRIMARY KEY)",
    "executor = alpha": "workflow_open",
    "parent = w40": "workflow_parent",
    "ParentWorkflowId IN ('w40', 'w60') AND status = open": "workflow_parent",
}
FILL = """
insert into perdure.workflow (app, id, run, lineage, name, version, status, reason, created, updated, closed,
    fingerprint, nonce, problem, parent)
select 'app', 'w' || i, 1, '', 'flow-' || i % 5, case when i % 20 = 0 then 'v2' else 'v1' end, s,
    case when s = 4 then 'no_code' end, i, i, case when s >= 5 then i end, '', '',
    case when i % 50 = 0 then (array['no_code', 'step_failed'])[i / 50 % 2 + 1] end,
    case when i % 10 = 3 then 'w' || i / 100 * 20 end
from (select i, (array[5, 5, 5, 5, 5, 5, 5, 6, 3, 4])[i * 37 % 100 / 10 + 1] as s from generate_series(1, {n}) i) x"""
LITE = """
insert into workflow (app, id, run, lineage, name, version, status, reason, created, updated, closed, fingerprint,
    nonce, problem, parent)
select 'app', 'w' || i, 1, x'', 'flow-' || i % 5, case when i % 20 = 0 then 'v2' else 'v1' end, s,
    case when s = 4 then 'no_code' end, i, i, case when s >= 5 then i end, x'', x'',
    case when i % 50 = 0 then iif(i / 50 % 2, 'no_code', 'step_failed') end,
    case when i % 10 = 3 then 'w' || i / 100 * 20 end
from (with recursive n (i) as (select 1 union all select i + 1 from n where i < {n})
    select i, json_extract('[5, 5, 5, 5, 5, 5, 5, 6, 3, 4]', '$[' || (i * 37 % 100 / 10) || ']') as s from n)"""
N = 20_000
USES = ("count", "frozen", "list")


async def explained(store: Any, sql: str, arguments: list[Any]) -> str:
    if isinstance(store, SQLiteStore):
        plan = await store._read(lambda conn: conn.execute(f"explain query plan {sql}", tuple(arguments)).fetchall())
        return "\n".join(row[3] for row in plan)
    return "\n".join(row[0] for row in await store._searching._fetch(f"explain {sql}", arguments))


@pytest.mark.slow
async def test_the_runbooks_questions_go_by_an_index(store: Any) -> None:
    if isinstance(store, SQLiteStore):
        await store._write(lambda conn: conn.execute(LITE.format(n=N)).fetchall())
    else:
        await store._writing.raw(lambda conn: conn.execute(FILL.format(n=N)))
        await store._writing.raw(lambda conn: conn.execute("vacuum analyze perdure.workflow"), transacts=True)
    for text, index in BY_INDEX.items():
        uses = ("count", "frozen") if isinstance(store, SQLiteStore) and "completed" in text else USES
        for use in uses:
            asked = SQLiteSearch("app", T) if isinstance(store, SQLiteStore) else PostgresSearch("app", T)
            query = read_query(text, "app")
            sql = asked.page(query, 5000, None) if use == "list" else asked.count(query)
            if use == "frozen":  # as the targets of a batch
                asked = type(asked)("app", T)
                sql = asked.frozen(query, "k", N)
            plan = await explained(store, sql, asked.arguments)
            assert re.search(rf"\b{index}\b", plan), f"{use} of {text}:\n{plan}"
            assert not re.search(r"Seq Scan on workflow|SCAN c", plan), f"{use} of {text}:\n{plan}"
    newest = SQLiteSearch("app", T) if isinstance(store, SQLiteStore) else PostgresSearch("app", T)
    sql = newest.page(where(), 50, None)
    assert "workflow_created" in await explained(store, sql, newest.arguments)


@pytest.mark.postgres
async def test_a_question_has_a_connection_of_its_own_while_somebody_asks(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one delays neither claims nor leases, and nothing is held open for those that may come."""
    monkeypatch.setattr(occasional, "IDLE_SECONDS", 0.0)
    rested = asyncio.Event()
    rest = occasional.Occasional._rest
    monkeypatch.setattr(occasional.Occasional, "_rest", lambda self: (rest(self), rested.set()))
    store = PostgresStore(postgres_url, "app")
    await store.open()
    await store.migrate()
    await put(store, [held("a"), held("b")])
    searching = store._searching

    async def settings(name: str) -> str:
        return str((await searching._fetch(f"select current_setting('{name}')", []))[0][0])

    assert await settings("plan_cache_mode") == "force_custom_plan"
    assert await settings("enable_seqscan") == "on"
    slow = asyncio.create_task(searching._fetch("select pg_sleep(0.3)", []))
    await asyncio.sleep(0)
    assert await store.heartbeat(b"nobody", 1) is None
    assert [row.id for row in (await store.list(where())).rows] == ["b", "a"]
    assert not slow.done() or slow.result()
    rested.clear()
    await slow
    await rested.wait()
    assert searching._own._resting is not None  # let go by itself, and made again by the next
    await searching._own._resting
    assert searching._own._link._conn is None
    assert len((await store.list(where())).rows) == 2
    await store.close()
    await store.close()
