"""The choice of drivers, measured: asyncpg or psycopg 3 for Postgres, apsw or the standard sqlite3 for SQLite.

    python -m bench.drivers [--seconds 1] [--runs 3]

Postgres: one durable row alone (insert and commit), and 500 rows as columns in one statement: as arrays, and as JSON
text taken apart by the server, which is how Perdure sends them. SQLite: one durable row alone and batches of 100, in a
write-ahead log with ``synchronous = full``. CPU of this process and of the server stand beside the rates.

psycopg is no dependency of ours: it is taken from this environment, else from the peers' (`make bench-peers`).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

import apsw
import asyncpg

from bench.__main__ import RESULTS, ROOT, SETTINGS, server_pid
from bench.meter import Meter
from tests.postgres import Cluster, Server

ROWS = 500
PAYLOAD = json.dumps({"text": "x" * 180})
TABLE = "create table t (wf text, seq int, name text, data text, token bytea, primary key (wf, seq))"
ALONE = "insert into t values ($1, $2, $3, $4, $5)"
ARRAYS = "insert into t select * from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::bytea[])"
JSON = """
insert into t select a, b::int, c, d, decode(e, 'base64') from rows from (json_array_elements_text($1::json),
  json_array_elements_text($2::json), json_array_elements_text($3::json), json_array_elements_text($4::json),
  json_array_elements_text($5::json)) u (a, b, c, d, e)"""
SPLIT = """
insert into t select a, b, c, d, substr($5::bytea, 1 + 16 * (n::int - 1), 16) from rows from (
  unnest(string_to_array($1::text, e'\\x1f')), unnest($2::text::int[]), unnest(string_to_array($3::text, e'\\x1f')),
  unnest(string_to_array($4::text, e'\\x1f'))) with ordinality u (a, b, c, d, n)"""
Write = Callable[[list[tuple[Any, ...]]], Awaitable[Any]]


numbers = itertools.count()


def rows(count: int) -> list[tuple[Any, ...]]:
    token, id = os.urandom(16), f"workflow-{next(numbers)}"
    return [(id, n, "charge", PAYLOAD, token) for n in range(count)]


def as_json(batch: list[tuple[Any, ...]]) -> list[str]:
    from msgspec.json import encode

    return [encode(column).decode() for column in zip(*batch, strict=True)]


def as_text(batch: list[tuple[Any, ...]]) -> list[Any]:
    ids, seqs, names, data, tokens = zip(*batch, strict=True)
    numbered = "{" + ",".join(map(str, seqs)) + "}"
    return ["\x1f".join(ids), numbered, "\x1f".join(names), "\x1f".join(data), b"".join(tokens)]


async def timed(name: str, size: int, write: Write, a: argparse.Namespace, pid: int) -> None:
    """Rows a second, and CPU of both sides for each row: the median of the runs."""
    rates, client, server = [], [], []
    for _ in range(a.runs):
        for _ in range(20):
            await write(rows(size))
        meter, batches = Meter(pid).start(), 0
        while time.perf_counter() - meter.began < a.seconds:
            await write(rows(size))
            batches += 1
        result = meter.stop()
        rates.append(batches * size / result["wall_s"])
        client.append(result["client_cpu_s"] / (batches * size) * 1e6)
        server.append(result.get("server_cpu_s", 0.0) / (batches * size) * 1e6)
    print(
        f"  {name:44} {statistics.median(rates):10,.0f} rows/s   {statistics.median(client):7.2f} µs client "
        f"{statistics.median(server):7.2f} µs server, a row",
        flush=True,
    )


async def postgres(server: Server, a: argparse.Namespace) -> None:
    pid = a.pid
    name = server.create_database(name=f"drivers_{os.getpid()}")
    url = server.url(name)
    try:
        connection = await asyncpg.connect(url)
        print(f"Postgres {connection.get_server_version()[:2]}, asyncpg {asyncpg.__version__}")
        await connection.execute(TABLE)
        alone, arrays = await connection.prepare(ALONE), await connection.prepare(ARRAYS)
        texts, split = await connection.prepare(JSON), await connection.prepare(SPLIT)
        await timed("asyncpg, a row alone", 1, lambda batch: alone.fetch(*batch[0]), a, pid)
        await timed(
            "asyncpg, 500 rows, arrays", ROWS, lambda batch: arrays.fetch(*map(list, zip(*batch, strict=True))), a, pid
        )
        await timed("asyncpg, 500 rows, JSON", ROWS, lambda batch: texts.fetch(*as_json(batch)), a, pid)
        await timed("asyncpg, 500 rows, split text", ROWS, lambda batch: split.fetch(*as_text(batch)), a, pid)
        await connection.close()
        await with_psycopg(url, a, pid)
    finally:
        server.drop_database(name)


async def with_psycopg(url: str, a: argparse.Namespace, pid: int) -> None:
    home = ROOT / ".venv-peers" / "dbos" / "lib"
    sys.path += [str(path) for path in home.glob("python*/site-packages")]
    try:
        psycopg: Any = importlib.import_module("psycopg")
    except ImportError as missing:
        print(f"  psycopg is not here ({missing}): make bench-peers")
        return
    print(f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})")
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)

    def form(text: str) -> str:
        for n in range(1, 6):
            text = text.replace(f"${n}", "%s")
        return text

    alone, arrays, texts = form(ALONE), form(ARRAYS), form(JSON)
    await timed("psycopg async, a row alone", 1, lambda batch: connection.execute(alone, batch[0]), a, pid)
    await timed(
        "psycopg async, 500 rows, arrays", ROWS,
        lambda batch: connection.execute(arrays, [list(column) for column in zip(*batch, strict=True)]), a, pid,
    )  # fmt: skip
    await timed("psycopg async, 500 rows, JSON", ROWS, lambda batch: connection.execute(texts, as_json(batch)), a, pid)
    await connection.close()


async def sqlite(a: argparse.Namespace) -> None:
    table = "create table t (wf text, seq int, name text, data text, token blob, primary key (wf, seq)) without rowid"
    insert = "insert into t values (?, ?, ?, ?, ?)"
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        ours, theirs = apsw.Connection(f"{folder}/a.db"), sqlite3.connect(f"{folder}/b.db", isolation_level=None)
        print(f"SQLite {apsw.sqlite_lib_version()} in apsw {apsw.apsw_version()}, {sqlite3.sqlite_version} in sqlite3")
        for name, db in (("apsw", ours), ("sqlite3", theirs)):
            for pragma in ("pragma journal_mode = wal", "pragma synchronous = full", table):
                db.execute(pragma).fetchall()

            async def write(batch: list[tuple[Any, ...]], db: Any = db) -> None:
                db.execute("begin immediate")
                db.executemany(insert, batch)
                db.execute("commit")

            for size in (1, 100):
                await timed(f"{name}, {'a row alone' if size == 1 else '100 rows'}, WAL, full", size, write, a, 0)
            db.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    url = os.environ.get("PERDURE_TEST_POSTGRES")
    if url:
        server = Server(url)
        a.pid = server_pid(server)
        asyncio.run(postgres(server, a))
    else:
        with Cluster(settings=SETTINGS) as cluster:
            a.pid = server_pid(cluster)
            asyncio.run(postgres(cluster, a))
    asyncio.run(sqlite(a))


if __name__ == "__main__":
    main()
