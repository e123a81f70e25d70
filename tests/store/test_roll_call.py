"""The roll: who is there, what they own and what nobody holds, in one snapshot; and on Postgres, who is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from perdure.store.base import Store
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.lifeline import PREFIX
from tests.store.build import ME, OTHER, SECOND, T, one, own, queued, running, start, tok
from tests.store.test_executors import who

Make = Callable[[str], Awaitable[Store]]


async def test_nobody_is_there(store: Store) -> None:
    roll = await store.roll_call(now=T)
    assert (roll.now, roll.known, roll.owners, roll.strays) == (T, [], [], [])


async def test_it_says_what_each_question_would(make_store: Make) -> None:
    store, elsewhere = await make_store("app"), await make_store("elsewhere")
    await running(elsewhere, "x")
    await queued(elsewhere, "y", version="other")
    for n, id in enumerate((OTHER, ME)):
        await store.register(who(id), SECOND, now=T + n)
    for n, owner in enumerate((OTHER, b"b".ljust(16, b"."), b"a".ljust(16, b"."), b"b".ljust(16, b"."))):
        claim = tok("claim")
        await one(store, own(f"w{n}", claim, start=start(f"w{n}", claim, owner=owner)))
    await queued(store, "q1", version="v7")
    await queued(store, "q2", version="v3")
    await queued(store, "q3", version="")
    roll = await store.roll_call(now=T + 9)
    assert roll.now == T + 9
    assert [one.id for one in roll.known] == [OTHER, ME], "as they were launched"
    assert roll.known == await store.incarnations()
    assert sorted(roll.owners) == sorted([OTHER, b"a".ljust(16, b"."), b"b".ljust(16, b".")])
    assert roll.strays == ["v3", "v7"]


async def test_without_a_clock_it_is_the_databases_time(store: Store) -> None:
    before = (await store.poll(None, None)).now
    assert before <= (await store.roll_call()).now <= (await store.poll(None, None)).now


# -- on Postgres, leases have names


async def with_lifeline(url: str, id: bytes, lost: Callable[[], None] = lambda: None) -> Any:
    """A store as the lease of ``id`` has it, open."""
    store = PostgresStore(url, "app")
    store.lifeline(id, lost)
    await store.open()
    return store


async def connected(store: Store) -> frozenset[bytes] | None:
    return (await store.roll_call()).connected


@pytest.mark.postgres
async def test_the_server_tells_whose_lease_is_connected(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "app")
    await store.open()
    await store.migrate()
    assert await connected(store) == frozenset()
    first, second = [await with_lifeline(postgres_url, id) for id in (ME, OTHER)]
    assert await connected(store) == {ME, OTHER}
    await first.close()
    while ME in (await connected(store) or ()):  # noqa: ASYNC110  the server takes a moment to see it
        await asyncio.sleep(0.01)  # waits: for another process
    assert await connected(store) == {OTHER}
    other = await asyncpg.connect(postgres_url)
    await other.execute(f"set application_name to '{PREFIX}of a flat'")
    assert await connected(store) == {OTHER}, "what others call theirs tells of nobody"
    await other.close()
    await second.close()
    await store.close()


@pytest.mark.postgres
async def test_who_is_cut_off_hears_of_it_and_bears_its_name_again(postgres_url: str) -> None:
    lost = asyncio.Event()
    store = PostgresStore(postgres_url, "app")
    await store.open()
    await store.migrate()
    lease = await with_lifeline(postgres_url, ME, lost.set)
    await store.register(who(ME), SECOND)
    await store._reading.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1", PREFIX + ME.hex()
    )
    await asyncio.wait_for(lost.wait(), 10)
    assert await connected(store) == frozenset()
    assert await lease.heartbeat(ME, SECOND)
    assert await connected(store) == {ME}
    await lease.close()
    await store.close()


@pytest.mark.postgres
async def test_each_connection_that_asks_is_another_session(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "app")
    await store.open()
    await store.migrate()
    session = (await store.roll_call()).session
    assert session == (await store.roll_call()).session != 0
    await store._reading.raw(_end)
    assert (await store.roll_call()).session not in (session, 0)
    await store.close()


async def _end(conn: Any) -> None:
    conn.terminate()
