"""Behind a transaction pooler: that it is seen and said, what holds in each transaction, hints, and its restarts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from perdure.errors import ConfigError, DatabaseTrouble
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.connection import SETTINGS, WRITING, Link
from perdure.store.postgres.pooler import OF_SESSION, way_of
from tests.pgbouncer import NoPooler, Pooler, find_pgbouncer
from tests.postgres import Server
from tests.store.build import commit, one, outside, own, queued, record, row, running, send, tok, unit, want
from tests.store.conftest import MakeStore

pytestmark = pytest.mark.postgres


def test_what_a_url_says_of_poolers() -> None:
    plain = way_of("postgresql://me:pw@pool:6432/db?sslmode=require")
    assert (plain.url, plain.pooler, plain.direct) == ("postgresql://me:pw@pool:6432/db?sslmode=require", None, None)
    way = way_of("postgresql://me:pw@pool:6432/db?sslmode=require&pooler=transaction&direct=host:5433")
    assert (way.url, way.pooler) == ("postgresql://me:pw@pool:6432/db?sslmode=require", "transaction")
    assert way.direct == "postgresql://me:pw@host:5433/db?sslmode=require"
    assert way_of("postgresql://pool/db?direct=host").direct == "postgresql://host/db"
    for wrong in ("pooler=statement", "pooler=", "direct=", "direct=postgresql://host"):
        with pytest.raises(ConfigError, match="in the database URL"):
            way_of(f"postgresql://pool/db?{wrong}")


def test_no_pgbouncer_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: None)
    with pytest.raises(NoPooler, match="install the package pgbouncer"):
        find_pgbouncer()


async def test_doctor_names_it_and_what_is_lost(pooled_url: str, pooler: Pooler) -> None:
    facts: dict[str, dict[str, tuple[str, bool]]] = {}
    for query in ("", "?pooler=transaction", f"?pooler=transaction&direct={pooler.direct}", "?pooler=session"):
        store = PostgresStore(pooled_url + query, "app")
        await store.open()
        await store.migrate()
        facts[query] = {what: (value, good) for what, value, good in (await store.health()).facts}
        await store.close()
    seen, said, heard, session = facts.values()
    assert seen["connection"][0].startswith(
        "through PgBouncer, pooling by transaction (for all that can be seen): each"
    )
    assert "a failover is noticed only when" in seen["connection"][0]
    assert seen["notifications"] == ("do not arrive: waits are found by polling alone, within a second", False)
    assert "(as the URL says)" in said["connection"][0]
    assert all(good for _, good in said.values()), "who says that there is one knows"
    assert heard["notifications"][0].startswith(f"arrive, by way of {pooler.direct}/")
    assert session["connection"][0] == "through a session pooler"


async def test_every_transaction_has_the_settings(
    make_store: MakeStore, postgres_server: Server, postgres_url: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    postgres_server.sql(f"alter database \"{database}\" set default_transaction_isolation = 'serializable'")
    store: PostgresStore = await make_store("app")  # type: ignore[assignment]
    for link, settings in ((store._reading, SETTINGS), (store._writing, WRITING)):
        wanted = {name: value for name, value in settings.items() if name not in OF_SESSION}
        wanted["transaction_isolation"] = "read committed"
        asked = "select name, setting from pg_settings where name = any($1)"
        assert dict(await link.fetch(asked, list(wanted))) == wanted
        async with link.transaction() as tx:
            assert dict(await tx.fetch(asked, list(wanted))) == wanted
    postgres_server.sql(f'alter database "{database}" reset all')


async def test_a_session_has_the_settings_that_its_pooler_refused_at_the_login(postgres_url: str) -> None:
    """PgBouncer refuses most of them; where it pools by session, no transaction of ours brings them."""
    with Pooler(postgres_url, mode="session") as pooler:
        link = Link(pooler.url(postgres_url.rpartition("/")[2]) + "?pooler=session")
        link.open()
        found = await link.fetch("select name, setting from pg_settings where name = any($1)", list(SETTINGS))
        await link.close()
    assert dict(found) == SETTINGS


async def test_more_clients_than_connections_meet_no_statement_of_each_other(make_store: MakeStore) -> None:
    stores = [await make_store("app") for _ in range(12)]

    async def work(n: int) -> None:
        store = stores[n]
        for k in range(15):
            id = f"w{n}-{k}"
            claim = await running(store, id)
            assert (await one(store, unit(id, claim, records=[record(1)]))).applied
            await queued(store, f"q{n}-{k}")
            batch = [own(f"o{n}-{k}", tok("claim")), unit(id, claim, records=[record(2)]), outside(sends=[send(id)])]
            assert all(v.applied for v in (await commit(store, *batch)).verdicts)
            assert (await row(store, id)).last_seq == 2
            await store.claim(want(3))
            await store.poll(None, None)

    await asyncio.gather(*(work(n) for n in range(len(stores))))


async def test_hints_are_heard_by_way_of_the_server_itself(pooled_url: str, pooler: Pooler) -> None:
    url = f"{pooled_url}?pooler=transaction&direct={pooler.direct}"
    speaker, ear = PostgresStore(pooled_url, "app"), PostgresStore(url, "app")
    heard = asyncio.Event()
    for store in (speaker, ear):
        await store.open()
    ear.on_hint(lambda _queues: heard.set())
    while not heard.is_set():  # until it listens
        speaker.hint()
        await asyncio.wait([asyncio.ensure_future(heard.wait())], timeout=0.1)
    for store in (speaker, ear):
        await store.close()


async def test_the_pooler_restarts_under_it(postgres_url: str, pooler: Pooler) -> None:
    name = postgres_url.rpartition("/")[2]
    with Pooler(postgres_url) as own_pooler:
        store = PostgresStore(own_pooler.url(name), "app")
        await store.open()
        await store.migrate()
        claim = await running(store, "w")
        own_pooler.stop()
        own_pooler.start()
        u = unit("w", claim, records=[record(1)])
        for _ in range(3):
            with contextlib.suppress(DatabaseTrouble):  # a lost answer, or two: the same unit again
                verdict = await one(store, u)
                break
        assert verdict.applied
        assert (await row(store, "w")).last_seq == 1
        await store.close()
