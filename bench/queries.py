"""How long questions about very many workflows take: ``python -m bench.queries --n 1000000 [--db URL] [--explain]``.

Fills an empty database with so many workflows of one app: 70 % completed, 8 % failed, timed out and cancelled, 20 %
asleep, 2 % held; four in five of them of the good version; five types; a third with attributes. Then asks what the
runbook for a bad rollout asks, each ``--times`` over, through the store, and prints the middle and the end of it in
milliseconds. ``--explain``: the plans, too. ``--sleepers``: all but 2 % are asleep instead, nothing is ever finished.

Without --db: an empty database of a Postgres that is found and started. The filled one is analyzed and vacuumed once,
as autovacuum would in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from bench.meter import latencies
from bench.places import database
from perdure.query.read import read_query
from perdure.store.open import open_store
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.search import PostgresSearch
from perdure.store.sqlite import SQLiteStore
from perdure.store.sqlite.search import SQLiteSearch

APP = "YourDeploymentName"
BAD = "WorkerDeploymentVersion='YourDeploymentName:v2'"
PROBLEMS = "ReportedProblems IN ('category=WorkflowTaskFailed', 'category=WorkflowTaskTimedOut')"

COUNTS = {
    "still retrying": f"{BAD} AND ExecutionStatus='Running' AND {PROBLEMS}",
    "failed of a version": f"{BAD} AND (ExecutionStatus='Failed' OR ExecutionStatus='TimedOut')",
    "closed of a version and type": f"{BAD} AND ExecutionStatus IN ('Completed', 'Failed') AND type = 'flow-3'",
    "open of a version and type": "version = v2 AND status = open AND type = 'flow-3'",
    "open of a version, pinned": "version = v2 AND status = open AND versioning = pinned",
    "plan: by type and status": "version = v2 AND status IN (open, failed, timed_out) GROUP BY type, status",
    "plan: by problem": "version = v2 AND problem IS NOT NULL GROUP BY type, problem",
    "all by status and version": "GROUP BY status, version",
    "by an attribute": "version = v2 AND status = failed GROUP BY attributes.region",
    "by error": "version = v2 AND status = failed GROUP BY error",
}
LISTS = {
    "newest": "",
    "failed of a version": COUNTS["failed of a version"],
    "still retrying": COUNTS["still retrying"],
    "open of a version and type": COUNTS["open of a version and type"],
    "failed of a rare type": "type = 'rare' AND status = failed",
    "an attribute": "version = v2 AND status = failed AND attributes.region = 'eu'",
    "longest": "status = failed AND version = v2 ORDER BY duration DESC",
    "by id": "id IN ('w17', 'w18', 'w19')",
    "ids": "id STARTS_WITH 'w9999'",
    "last closed": "version = v2 AND status = closed ORDER BY closed DESC",
}

STATUSES = [5] * 70 + [6] * 5 + [9] * 2 + [7] + [3] * 20 + [4] * 2
SLEEPERS = [3] * 98 + [4] * 2
FILL = """
insert into {perdure}workflow (app, id, run, lineage, name, version, status, reason, claim, until, created, updated,
    started, closed, attributes, versioning, fingerprint, nonce, problem)
select '{app}', 'w' || i, 1, {bytes}, case when i % 100000 = 7 then 'rare' else 'flow-' || (i % 5) end,
    case when (i * 7919 % 1000) < 200 then 'v2' else 'v1' end, s,
    case when s = 4 then case i % 3 when 0 then 'nondeterminism' when 1 then 'no_code' else 'paused' end end,
    {bytes}, case when s = 3 then 1800000000000000 + i end, 1800000000000000 + i * 1000, 1800000000000000 + i * 1000,
    1800000000000000 + i * 1000, case when s >= 5 then 1800000000000000 + i * 1000 + i * 31 % 60000000 end,
    case when i % 3 = 0 then {json} end, i % 3, {bytes}, {bytes},
    case when s = 4 then case i % 3 when 0 then 'nondeterminism' when 1 then 'no_code' end end
from (select i, {status} as s from numbers) x"""
PAYLOAD = """
insert into {perdure}payload (app, id, run, input, outcome, output)
select app, id, 1, {input}, case when status = 6 then 2 else 0 end, case when status = 6 then {failure} end
from {perdure}workflow where app = '{app}'"""


def filling(n: int, sqlite: bool, sleepers: bool) -> list[str]:
    codes = SLEEPERS if sleepers else STATUSES
    mixed = "i * 37 % 100"
    failure = '{"type":"shop.errors:CardDeclined","message":"no"}'
    common = {"app": APP}
    if sqlite:
        status = f"json_extract('{json.dumps(codes)}', '$[' || ({mixed}) || ']')"
        numbers = f"with recursive n (i) as (select 1 union all select i + 1 from n where i < {n}) select i from n"
        return [
            FILL.format(
                perdure="", bytes="zeroblob(16)", status=status, **common,
                json="cast('{\"region\":\"' || case i % 2 when 0 then 'eu' else 'us' end || '\"}' as blob)",
            ).replace("from numbers", f"from ({numbers})"),
            PAYLOAD.format(perdure="", input="cast('1' as blob)", failure=f"cast('{failure}' as blob)", **common),
        ]  # fmt: skip
    return [
        FILL.format(
            perdure="perdure.", bytes="'0123456789abcdef'::bytea", status=f"(array{codes})[{mixed} + 1]",
            json="'{\"region\":\"' || case i % 2 when 0 then 'eu' else 'us' end || '\"}'", **common,
        ).replace("from numbers", f"from generate_series(1, {n}::bigint) i"),
        PAYLOAD.format(perdure="perdure.", input="'1'", failure=f"'{failure}'", **common),
        "vacuum analyze perdure.workflow",
        "vacuum analyze perdure.payload",
        "checkpoint",
    ]  # fmt: skip


async def fill(store: Any, n: int, *, sleepers: bool) -> None:
    if isinstance(store, SQLiteStore):
        for sql in filling(n, True, sleepers):
            await store._write(lambda conn, sql=sql: conn.execute(sql).fetchall())
        return
    assert isinstance(store, PostgresStore)

    async def run(conn: Any) -> None:
        await conn.execute("set statement_timeout = 0")
        for sql in filling(n, False, sleepers):
            await conn.execute(sql)

    await store.upkeep.link.raw(run, transacts=True)
    await store.upkeep.rest()


async def explained(store: Any, sql: str, arguments: Sequence[Any]) -> str:
    if isinstance(store, SQLiteStore):
        plan = await store._read(lambda conn: conn.execute(f"explain query plan {sql}", tuple(arguments)).fetchall())
        return "\n".join(f"    {row[3]}" for row in plan)
    made = await store._searching._fetch(f"explain (analyze, buffers, costs) {sql}", arguments)
    return "\n".join(f"    {row[0]}" for row in made)


async def measure(a: argparse.Namespace, url: str) -> None:
    store: Any = open_store(url, APP)
    await store.open()
    await store.migrate()
    if a.before and isinstance(store, SQLiteStore):
        await store._write(lambda conn: conn.execute(a.before).fetchall())
    elif a.before:
        await store.upkeep.link.raw(lambda conn: conn.execute(a.before), transacts=True)
    began = time.perf_counter()
    await fill(store, a.n, sleepers=a.sleepers)
    print(f"{a.n:,} workflows in {url.partition(':')[0]}, filled in {time.perf_counter() - began:.0f} s")
    build = SQLiteSearch if isinstance(store, SQLiteStore) else PostgresSearch
    for kind, asked in (("count", COUNTS), ("list", LISTS)):
        for name, text in asked.items():
            if a.only and a.only not in f"{kind}: {name}":
                continue
            query = read_query(text, APP, use="count" if kind == "count" else "list")
            took: list[float] = []
            for _ in range(a.times):
                began = time.perf_counter()
                got = await store.count(query) if kind == "count" else await store.list(query, limit=50)
                took.append(time.perf_counter() - began)
            found = sum(c.total for c in got) if isinstance(got, list) else len(got.rows)
            line = latencies(took)
            print(f"{kind:5} {name:30} {line['p50_ms']:9.1f} {line['max_ms']:9.1f} ms  {found:>9,}", flush=True)
            if a.explain:
                search = build(APP, 1_900_000_000_000_000)
                sql = search.count(query) if kind == "count" else search.page(query, 50, None)
                print(await explained(store, sql, search.arguments))
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.queries", description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--db", help="an empty database; sqlite: a new file")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--only", help="only questions whose name has this")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--sleepers", action="store_true")
    parser.add_argument("--before", help="SQL to run before the rows are there, such as an index to try")
    a = parser.parse_args()
    with database(a.db) as url:
        asyncio.run(measure(a, url))


if __name__ == "__main__":
    main()
