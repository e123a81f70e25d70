"""What ``doctor`` wants to know of a Postgres database: facts with a verdict, most severe first."""

from __future__ import annotations

import asyncio
import os
import time

from perdure.store.base import Health
from perdure.store.postgres import migrate
from perdure.store.postgres.connection import SETTINGS, Connection, Link

SERVER_MIN = 14
SKEW_SECONDS_MAX = 5.0
PLANS = ("plan_cache_mode", "enable_seqscan", "jit")
DURABLE = {"fsync": ("on",), "synchronous_commit": ("on", "remote_apply", "remote_write"), "full_page_writes": ("on",)}

Fact = tuple[str, str, bool]


async def health(link: Link, schema: str) -> Health:
    """All facts, the bad ones first."""
    facts = await link.raw(lambda conn: _facts(conn, schema))
    return Health(facts=sorted(facts, key=lambda fact: fact[2]))


async def _facts(conn: Connection, schema: str) -> list[Fact]:
    facts: list[Fact] = []
    running = conn.get_server_version()
    facts.append(("Postgres", f"{running.major}.{running.minor}", running.major >= SERVER_MIN))
    for name, good in DURABLE.items():
        value = await _setting(conn, name)
        facts.append((name, value, value in good))
    for name in PLANS:
        value = await _setting(conn, name)
        facts.append((name, f"{value} (wanted: {SETTINGS[name]})", value == SETTINGS[name]))
    encoding = await _setting(conn, "server_encoding")
    facts.append(("encoding", encoding, encoding == "UTF8"))
    replica = await conn.fetchval("select pg_is_in_recovery()")
    facts.append(("takes writes", "no: a standby" if replica else "yes", not replica))
    have, want = await migrate.version(conn, schema), migrate.known()
    facts.append(("schema version", f"{have} (known: {want})", have == want))
    facts.append(await _clock(conn))
    facts.append(await _pooler(conn))
    facts.append(await _notifications(conn))
    return facts


async def _setting(conn: Connection, name: str) -> str:
    value: str = await conn.fetchval("select current_setting($1, true)", name)
    return value


async def _clock(conn: Connection) -> Fact:
    before = time.time()
    there: float = await conn.fetchval("select extract(epoch from clock_timestamp())::float8")
    skew = there - (before + time.time()) / 2
    return "clock against this host", f"{skew * 1000:+.0f} ms", abs(skew) < SKEW_SECONDS_MAX


async def _pooler(conn: Connection) -> Fact:
    """Whether statements outside a transaction meet different backends. Harmless, but hints then need their own way."""
    pids = {await conn.fetchval("select pg_backend_pid()") for _ in range(3)}
    pooled = len(pids) > 1 or conn.get_server_pid() not in pids
    return "connection", "through a transaction pooler" if pooled else "direct", True


async def _notifications(conn: Connection) -> Fact:
    """Whether a notification sent here arrives here: behind a transaction pooler none does, and polling is all."""
    arrived = asyncio.Event()
    channel = "perdure_probe_" + os.urandom(4).hex()
    try:
        await conn.add_listener(channel, lambda *_: arrived.set())
        await conn.execute(f"notify {channel}")
        await asyncio.wait_for(arrived.wait(), 1.0)
    except TimeoutError:
        return "notifications", "do not arrive: waits are found by polling alone", False
    finally:
        if not conn.is_closed():
            await conn.execute(f"unlisten {channel}")
    return "notifications", "arrive", True
