"""Poolers between us and the server: whether there is one, and what a transaction needs that may rest on no session.

See docs/internals/poolers.md. Promise: behind a transaction pooler every statement is sent within a transaction, of its
own or a larger one, unnamed, with the settings that it needs; direct connections pay one look at each login.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from perdure.errors import ConfigError

POOLERS = ("transaction", "session")
OF_SESSION = frozenset({  # settings that no statement needs, and the one that its transaction is begun with
    "application_name", "default_transaction_isolation", "idle_session_timeout",
})  # fmt: skip
BEGIN = "begin isolation level read committed"  # whatever a transaction has by default

# What C programs understand in a URL, and hosts put there; the driver would pass it to the server as a setting.
OF_LIBPQ = frozenset({
    "channel_binding", "connect_timeout", "fallback_application_name", "gssencmode", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "load_balance_hosts", "sslcompression", "sslsni", "tcp_user_timeout",
})  # fmt: skip


class Way(msgspec.Struct, frozen=True):
    """How a URL says that the server is reached."""

    url: str  # without what is meant for us
    pooler: str | None  # "transaction", "session"; None: to be seen
    direct: str | None  # the same database without the pooler, for listening


def way_of(url: str) -> Way:
    """Read ``pooler`` and ``direct`` off a URL. Raises ``ConfigError`` for what they cannot be."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:  # no URL at all: the driver says it better
        return Way(url, None, None)
    ours = {key: value for key, value in given if key in ("pooler", "direct") or key in OF_LIBPQ}
    if not ours:
        return Way(url, None, None)
    pooler, direct = ours.get("pooler"), ours.get("direct")
    if pooler is not None and pooler not in POOLERS:
        raise ConfigError(f"pooler={pooler!r} in the database URL is none of {', '.join(POOLERS)}")
    for key in ("channel_binding", "gssencmode"):
        if ours.get(key) == "require":
            raise ConfigError(
                f"{key}=require in the database URL is more than the driver can do: leave it out. "
                "sslmode=verify-full with sslrootcert=… makes sure who the server is"
            )
    rest = [(key, value) for key, value in given if key not in ours]
    plain = urlunsplit(parts._replace(query=urlencode(rest)))
    if direct is None:
        return Way(plain, pooler, None)
    if not direct or "/" in direct or "@" in direct:
        raise ConfigError(f"direct={direct!r} in the database URL must be HOST or HOST:PORT of the server itself")
    login = parts.netloc.rpartition("@")[0]
    netloc = f"{login}@{direct}" if login else direct
    return Way(plain, pooler, urlunsplit(parts._replace(netloc=netloc, query=urlencode(rest))))


async def is_between(conn: Any) -> bool:
    """Whether somebody stands between: the backend that answers is not the one that the login told of."""
    await conn.execute("begin")
    try:
        found = await conn.fetchval("select pg_backend_pid()")
    finally:
        await conn.execute("rollback")
    return bool(found != conn.get_server_pid())


def settings_of(major: int) -> Mapping[str, str]:
    """What only later servers know: at the login of others, a name that is unknown is a refusal."""
    return {"transaction_timeout": "0"} if major >= 17 else {}  # each statement has a bound of its own


def begin_with(settings: Mapping[str, str]) -> str:
    """What begins a transaction in which these settings hold, whichever session it meets."""
    # Names and values are our own constants.
    return "; ".join([BEGIN, *(f"set local {n} = '{v}'" for n, v in settings.items() if n not in OF_SESSION)])


async def name_of(driver: Any, url: str) -> str:
    """What stands between: PgBouncer has a console that looks like a database, whoever is let in."""
    console = urlunsplit(urlsplit(url)._replace(path="/pgbouncer", query=""))
    try:
        conn = await driver.connect(console, timeout=2, statement_cache_size=0)
    except Exception as error:  # another pooler, or not for us
        return "PgBouncer" if "pgbouncer" in str(error).lower() else "a pooler"
    conn.terminate()
    return "PgBouncer"
