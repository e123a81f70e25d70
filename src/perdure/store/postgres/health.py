"""What ``doctor`` wants to know of a Postgres database: facts with a verdict, most severe first."""

from __future__ import annotations

import asyncio
import os
import time

from perdure.store.asks import Health
from perdure.store.postgres import migrate
from perdure.store.postgres.connection import SETTINGS, Connection, Link, driver
from perdure.store.postgres.pooler import name_of

SERVER_MIN = 14
SKEW_SECONDS_MAX = 5.0
OPEN_SECONDS_MAX = 600.0  # of a transaction: what has died since it began is kept, and all that searches goes past it
POLLING = "do not arrive: waits are found by polling alone, within a second"
PLANS = ("plan_cache_mode", "enable_seqscan", "jit")
DURABLE = {"fsync": ("on",), "synchronous_commit": ("on", "remote_apply", "remote_write"), "full_page_writes": ("on",)}

# The role; by table of the schema what it lacks; whether it may write anything.
_MISSING = """
with place as (select oid from pg_namespace where nspname = $1),
needed as (
    select c.relname, n.what, n.place, has_table_privilege(c.oid, n.what) as given
    from pg_class c join place on c.relnamespace = place.oid
    cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) with ordinality n (what, place)
    where c.relkind in ('r', 'p') and (n.what = 'SELECT' or c.relname <> 'meta')
),
missing as (
    select relname, string_agg(what, ', ' order by place) || ' on ' || relname as said
    from needed where not given group by relname
)
select current_user::text, (select array_agg(said order by relname) from missing),
    exists (select from needed where given and what <> 'SELECT')"""

# Our tables that are exempt from it; null if there is none.
_UNSWEPT = """
select string_agg(relname, ', ' order by relname) from pg_class
where relnamespace = (select oid from pg_namespace where nspname = $1) and relkind = 'r'
    and exists (
        select from pg_options_to_table(reloptions)
        where option_name = 'autovacuum_enabled' and not option_value::boolean)"""

# The oldest transaction that keeps dead rows of this database, and its seconds. What other roles do is hidden from one
# that may not see it.
_OLDEST = """
select who, seconds::float8 from (
    select
        format('process %s (%s, role %s, %s)', pid, coalesce(nullif(application_name, ''), 'unnamed'), usename, state),
        extract(epoch from clock_timestamp() - xact_start)
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
        and xact_start is not null and (backend_xmin is not null or backend_xid is not null)
    union all
    select format('prepared transaction %s of %s', gid, owner), extract(epoch from clock_timestamp() - prepared)
    from pg_prepared_xacts where database = current_database()) x (who, seconds)
order by seconds desc limit 1"""

Fact = tuple[str, str, bool]


async def health(link: Link, schema: str) -> Health:
    """All facts, the bad ones first."""
    facts = [*await link.raw(lambda conn: _facts(conn, schema)), await _between(link)]
    facts.append(await _notifications(link))
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
    refused = await _refuses_writes(conn)
    facts.append(("takes writes", refused or "yes", not refused))
    facts.append(await _rights(conn, schema))
    have, want = await migrate.version(conn, schema), migrate.known()
    facts.append(("schema version", f"{have} (known: {want})", have == want))
    facts.append(await _clock(conn))
    facts.append(await _autovacuum(conn, schema))
    facts.append(await _oldest(conn))
    return facts


async def _rights(conn: Connection, schema: str) -> Fact:
    """What this role may not do. One that is to read only lacks nothing."""
    role, missing, writes = await conn.fetchrow(_MISSING, schema)
    if not writes and missing and not any("SELECT" in each for each in missing):
        return "rights", f"the role {role} reads only", True
    if missing:
        return "rights", f"the role {role} lacks {'; '.join(missing)}", False
    return "rights", f"the role {role} has what an executor needs", True


async def _refuses_writes(conn: Connection) -> str:
    """Why nothing can be written; empty if it can be."""
    if await conn.fetchval("select pg_is_in_recovery()"):
        return "no: a standby"
    # Set by an administrator, or by a host whose disk is nearly full: it holds for each transaction that begins.
    return "no: default_transaction_read_only is on" if await _setting(conn, "transaction_read_only") == "on" else ""


async def _setting(conn: Connection, name: str) -> str:
    value: str = await conn.fetchval("select current_setting($1, true)", name)
    return value


async def _clock(conn: Connection) -> Fact:
    before = time.time()
    there: float = await conn.fetchval("select extract(epoch from clock_timestamp())::float8")
    skew = there - (before + time.time()) / 2
    return "clock against this host", f"{skew * 1000:+.0f} ms", abs(skew) < SKEW_SECONDS_MAX


async def _autovacuum(conn: Connection, schema: str) -> Fact:
    """Whether dead rows are removed, and statistics kept, without anybody's doing."""
    if "off" in (await _setting(conn, "autovacuum"), await _setting(conn, "track_counts")):
        return "autovacuum", "off", False  # it needs both
    unswept = await conn.fetchval(_UNSWEPT, schema)
    return "autovacuum", "on" if unswept is None else f"on, but off for {unswept}", unswept is None


async def _oldest(conn: Connection) -> Fact:
    found = await conn.fetchrow(_OLDEST)
    if found is None or found[1] <= OPEN_SECONDS_MAX:
        return "oldest transaction", f"none is open for longer than {OPEN_SECONDS_MAX:.0f} s", True
    return "oldest transaction", f"{found[0]}, open for {found[1]:.0f} s", False


async def _between(link: Link) -> Fact:
    """Who stands between, and what is lost by it."""
    if not link.pooled:
        return "connection", "direct" if link.way.pooler is None else "through a session pooler", True
    name = await name_of(driver(), link.url)
    why = "as the URL says" if link.way.pooler else "for all that can be seen"
    lost = (
        "each statement is planned anew and takes four round trips; a failover is noticed only when the pooler drops "
        "its clients, a half-open connection after 40 s"
    )
    return "connection", f"through {name}, pooling by transaction ({why}): {lost}", True


async def _notifications(link: Link) -> Fact:
    """Whether a notification that is sent arrives: behind a transaction pooler none does, and polling is all."""
    if await link.raw(lambda conn: conn.fetchval("select pg_is_in_recovery()")):
        return "notifications", "none: a standby", True  # which takes no writes: that is the fault
    if not link.pooled:
        return "notifications", *await link.raw(_arrive, transacts=True)
    if link.way.direct is None:
        return "notifications", POLLING, link.way.pooler is not None  # who says that there is one knows
    ear = Link(link.way.direct)
    ear.open()
    try:
        told, good = await ear.raw(_arrive, transacts=True)
    finally:
        await ear.close()
    return "notifications", f"{told}, by way of {ear.where}", good


async def _arrive(conn: Connection) -> tuple[str, bool]:
    arrived = asyncio.Event()
    channel = "perdure_probe_" + os.urandom(4).hex()
    try:
        await conn.add_listener(channel, lambda *_: arrived.set())
        await conn.execute(f"notify {channel}")
        await asyncio.wait_for(arrived.wait(), 1.0)
    except TimeoutError:
        return POLLING, False
    finally:
        if not conn.is_closed():
            await conn.execute(f"unlisten {channel}")
    return "arrive", True
