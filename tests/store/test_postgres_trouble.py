"""Trouble with the server: what is raised, that the next call reconnects, and hints between processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection

import pytest

from perdure.errors import (
    ConfigError,
    DatabaseTrouble,
    DatabaseUnusable,
    LostAnswer,
    NotOpen,
    Overloaded,
    PerdureError,
    RightsMissing,
    RowLocked,
    SchemaMismatch,
)
from perdure.model.records import Incarnation
from perdure.store.postgres import PostgresStore, connection
from perdure.store.postgres.connection import driver
from perdure.store.postgres.hints import NAMED_MAX
from perdure.store.postgres.trouble import loses_connection, translate, unreached
from tests.postgres import Cluster, free_port
from tests.runtime.support import until
from tests.store.build import one, own, record, running, tok, unit

pytestmark = pytest.mark.postgres


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(cluster.url(cluster.create_database()), "app")
    await made.open()
    await made.migrate()
    yield made
    await made.close()


@pytest.mark.crash
@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_after_a_restart_the_next_calls_reconnect(cluster: Cluster, store: PostgresStore, how: str) -> None:
    claim = await running(store, "w")
    if how == "kill":
        cluster.kill()
    else:
        cluster.stop(how)
    with pytest.raises(DatabaseTrouble):
        await store.rows(["w"])
    with pytest.raises(DatabaseTrouble):
        await one(store, unit("w", claim, records=[record(1)]))
    cluster.start()
    u = unit("w", claim, records=[record(1)])
    for _ in range(3):  # a connection that broke unseen costs one more try
        try:
            assert (await one(store, u)).applied
            break
        except DatabaseTrouble:
            continue
    assert (await store.rows(["w"]))["w"].last_seq == 1


async def test_a_write_cut_off_is_a_lost_answer_and_may_be_repeated(cluster: Cluster, store: PostgresStore) -> None:
    claim = await running(store, "w")
    other = await driver().connect(store._writing.url)
    await other.execute("begin")
    await other.fetch("select 1 from perdure.workflow where id = 'w' for update")
    u = unit("w", claim, records=[record(1)])
    task = asyncio.create_task(one(store, u))
    sql = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    while not (pid := await other.fetchval(sql)):
        await other.execute("select pg_stat_clear_snapshot()")
        await asyncio.sleep(0.005)  # waits: another session's lock is seen only by asking
    await other.fetchval("select pg_terminate_backend($1)", pid)
    with pytest.raises(LostAnswer):
        await task
    await other.execute("commit")
    await other.close()
    assert (await one(store, u)).applied


async def test_a_lock_held_too_long_is_an_overload(
    cluster: Cluster, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.WRITING, "lock_timeout", "100")
    await store._writing.close()
    store._writing.open()
    claim = await running(store, "w")
    other = await driver().connect(store._writing.url)
    await other.execute("begin")
    await other.fetch("select 1 from perdure.workflow where id = 'w' for update")
    with pytest.raises(RowLocked):
        await one(store, unit("w", claim, records=[record(1)]))
    await other.execute("rollback")
    await other.close()
    assert (await one(store, unit("w", claim, records=[record(1)]))).applied


async def test_a_cancelled_call_leaves_a_usable_store(cluster: Cluster, store: PostgresStore) -> None:
    task = asyncio.create_task(store._reading.fetch("select pg_sleep(20)"))
    await asyncio.sleep(0.05)  # waits: long enough that the statement is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.rows(["w"]) == {}


def test_a_process_whose_user_has_no_name_is_told_to_give_one() -> None:
    """As where a container runs under a number of its own."""
    said = unreached(KeyError("getpwuid(): uid not found: 1000660000"), "db:5432/shop")
    assert "Name one: postgresql://USER@host/db, or PGUSER" in said
    assert "Check that the server runs" not in said


async def test_an_unreachable_server_is_named_and_the_password_is_not() -> None:
    port = free_port()
    store = PostgresStore(f"postgresql://me:secret@127.0.0.1:{port}/db", "app")
    with pytest.raises(DatabaseTrouble, match=f"127.0.0.1:{port}/db") as caught:
        await store.open()
    assert "secret" not in str(caught.value)
    assert "secret" not in store.url


async def test_a_database_that_does_not_exist_is_a_mistake_in_the_url(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r'"nowhere" does not exist\. Correct its name, or make it: createdb'):
        await PostgresStore(cluster.url("nowhere"), "app").open()
    with pytest.raises(ConfigError, match=r'role "nobody" does not exist\. Correct user and password'):
        await PostgresStore(cluster.url().replace("//postgres@", "//nobody@"), "app").open()


async def test_a_wrong_password_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: object) -> None:
        raise driver().InvalidPasswordError('password authentication failed for user "me"')

    monkeypatch.setattr(connection.Link, "_connect", refused)
    with pytest.raises(DatabaseUnusable, match=r'failed for user "me"\. The password is wrong, or the user\.'):
        await PostgresStore("postgresql://me:secret@h/db", "app").open()


async def test_a_store_that_is_not_open_says_so(cluster: Cluster) -> None:
    store = PostgresStore(cluster.url(), "app")
    with pytest.raises(NotOpen):
        await store.rows(["w"])
    await store.close()
    await store.close()


class Said(Exception):
    """As the driver raises it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.sqlstate = code


WHAT = {
    DatabaseTrouble: "0A000 25000 25006 26000 28000 28P01 3D000 40001 42P05 55000 55006 57000 57P03 58030 58P01 72000 "
    "F0000 P0001",
    LostAnswer: "08000 08006 25P03 40003 57P01 57P02",
    Overloaded: "53100 53200 53300 57014",
    RowLocked: "55P03",
    RightsMissing: "0P000 42501",
    SchemaMismatch: "3F000 42P01 42703 42704 42883",
    Said: "21000 22001 22P05 23505 42601 44000 54000 XX000 XX001",
}


@pytest.mark.parametrize(("code", "kind"), [(code, kind) for kind, codes in WHAT.items() for code in codes.split()])
def test_only_what_a_unit_may_be_to_blame_for_goes_up_as_it_is(code: str, kind: type[Exception]) -> None:
    assert type(translate(Said(code), "here", writing=True, closed=False)) is kind
    assert not kind.__name__.startswith("Rights") or not loses_connection(Said(code)), "good again once it is granted"


async def test_a_missing_schema_says_to_migrate(cluster: Cluster) -> None:
    store = PostgresStore(cluster.url(cluster.create_database()), "app")
    await store.open()
    assert (await store.schema_version())[0] == 0
    with pytest.raises(PerdureError, match="migrate"):
        await store.rows(["w"])
    await store.close()


def test_the_driver_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(connection.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"perdure\[postgres\]"):
        connection.driver()


def test_schema_names_are_plain() -> None:
    with pytest.raises(ConfigError, match="schema"):
        PostgresStore("postgresql://localhost/db", "app", 'x"; drop table users')


@pytest.mark.crash
async def test_hints_reach_other_processes_and_survive_a_restart(cluster: Cluster, store: PostgresStore) -> None:
    url = store._writing.url
    other = PostgresStore(url, "app")
    stranger = PostgresStore(url, "another")
    heard = {"own": asyncio.Event(), "other": asyncio.Event(), "stranger": asyncio.Event()}
    await other.open()
    await stranger.open()
    for name, s in (("own", store), ("other", other), ("stranger", stranger)):
        s.on_hint(lambda _queues, event=heard[name]: event.set())

    async def hint_until_heard() -> None:
        heard["other"].clear()
        while not heard["other"].is_set():  # a hint may be lost while the listener connects
            store.hint()
            await asyncio.sleep(0.02)  # waits: until heard, a lost hint is sent again

    await asyncio.wait_for(hint_until_heard(), 10)
    assert not heard["own"].is_set()
    assert not heard["stranger"].is_set()
    cluster.restart()
    await asyncio.wait_for(hint_until_heard(), 20)
    await other.close()
    await stranger.close()


async def test_a_hint_says_in_which_lines_somebody_stands_if_that_is_all(store: PostgresStore) -> None:
    other = PostgresStore(store._writing.url, "app")
    heard: asyncio.Queue[Collection[str]] = asyncio.Queue()
    await other.open()
    other.on_hint(heard.put_nowait)

    async def said(*queues: str) -> Collection[str]:
        await until(lambda: store._hints._sending is None)
        store.hint("first")  # leaves at once; what is said meanwhile goes together
        for queue in queues:
            store.hint(queue)
        assert await asyncio.wait_for(heard.get(), 30) == ["first"]
        return await asyncio.wait_for(heard.get(), 30)

    while heard.empty():
        store.hint("listens?")
        await asyncio.sleep(0.02)  # waits: until heard, a lost hint is sent again
    await until(lambda: store._hints._sending is None)
    store.hint("listens!")
    while await asyncio.wait_for(heard.get(), 30) != ["listens!"]:
        pass
    assert await said("a") == ["a"]
    assert await said("b", "a b", "b") == ["b", "a b"]
    assert await said("a", "") == [], "anything may have happened"
    assert await said(*(f"q{n}" for n in range(NAMED_MAX + 1))) == [], "too many to name"
    await other.close()


async def test_health_of_a_database_that_is_read_only(cluster: Cluster) -> None:
    name = cluster.create_database()
    cluster.sql(f'alter database "{name}" set default_transaction_read_only = on')
    store = PostgresStore(cluster.url(name), "app")
    await store.open()
    facts = {what: (value, good) for what, value, good in (await store.health()).facts}
    await store.close()
    assert facts["takes writes"] == ("no: default_transaction_read_only is on", False)


async def test_health_of_a_standby(cluster: Cluster, store: PostgresStore) -> None:
    """It takes neither writes nor LISTEN: the fault is told, not stumbled over."""
    following = cluster.standby()
    try:
        there = PostgresStore(following.url(store._writing.url.rpartition("/")[2]), "app")
        await there.open()
        facts = {what: (value, good) for what, value, good in (await there.health()).facts}
        with pytest.raises(DatabaseTrouble, match=r"takes no writes .*give the URL of the primary"):
            await one(there, own("w", tok("claim")))
        await there.close()
    finally:
        following.destroy()
    assert [(what, *fact) for what, fact in facts.items() if not fact[1]] == [("takes writes", "no: a standby", False)]


async def test_a_database_that_cannot_hold_all_text_gets_no_schema(cluster: Cluster) -> None:
    name = f"latin_{cluster.create_database()}"
    cluster.sql(f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    store = PostgresStore(cluster.url(name), "app")
    await store.open()
    with pytest.raises(DatabaseUnusable, match=r"the encoding LATIN1.* --encoding UTF8 "):
        await store.migrate()
    await store.close()
    cluster.drop_database(name)


@pytest.mark.parametrize("more", ["connect_timeout=5", "keepalives=1&keepalives_idle=30", "channel_binding=prefer"])
async def test_what_c_programs_read_in_a_url_is_no_setting_of_the_server(cluster: Cluster, more: str) -> None:
    store = PostgresStore(f"{cluster.url(cluster.create_database())}?{more}&sslmode=prefer", "app")
    await store.open()
    await store.close()


async def test_what_cannot_be_done_of_a_url_is_said_at_the_opening(cluster: Cluster) -> None:
    url = cluster.url(cluster.create_database())
    with pytest.raises(ConfigError, match=r"channel_binding=require .* leave it out"):
        PostgresStore(f"{url}?channel_binding=require", "app")
    with pytest.raises(DatabaseUnusable, match=r'parameter "odd".* Leave out of the URL'):
        await PostgresStore(f"{url}?odd=1", "app").open()


async def test_health_of_a_sound_database(cluster: Cluster, store: PostgresStore) -> None:
    facts = {what: (value, good) for what, value, good in (await store.health()).facts}
    assert all(good for _, good in facts.values()), facts
    assert facts["fsync"] == ("on", True)
    assert facts["connection"][0] == "direct"


async def test_what_keeps_dead_rows_is_a_fault(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is searched goes past them; a transaction that keeps none, since it has not read yet, is no fault."""
    from perdure.store.postgres import health

    async def found() -> dict[str, tuple[str, bool]]:
        return {name: (value, good) for name, value, good in (await store.health()).facts}

    monkeypatch.setattr(health, "OPEN_SECONDS_MAX", 0.0)
    other = await driver().connect(store._writing.url, server_settings={"application_name": "report"})
    try:
        await other.execute("begin isolation level repeatable read")
        assert (await found())["oldest transaction"][1]
        await other.execute("select from perdure.meta")
        value, good = (await found())["oldest transaction"]
        assert f"process {other.get_server_pid()} (report, role" in value
        assert "idle in transaction" in value
        assert not good
        monkeypatch.setattr(health, "OPEN_SECONDS_MAX", 600.0)
        assert (await found())["oldest transaction"][1], "it has just begun"
        await other.execute("rollback; alter table perdure.wake set (autovacuum_enabled = false)")
        assert (await found())["autovacuum"] == ("on, but off for wake", False)
        await other.execute("alter table perdure.wake reset (autovacuum_enabled)")
        assert (await found())["autovacuum"] == ("on", True)
    finally:
        await other.close()


async def test_a_clock_that_is_far_off_is_a_fault(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from perdure.store.postgres import health

    away = {"now": 0.0}
    monkeypatch.setattr(health, "time", type("Time", (), {"time": lambda: time.time() + away["now"]}))
    for seconds, good in ((0, True), (30, False), (-30, False)):
        away["now"] = seconds
        facts = {name: (value, fine) for name, value, fine in (await store.health()).facts}
        assert facts["clock against this host"][1] is good, facts


async def test_after_a_start_of_the_server_a_lease_is_good_for_its_length(store: PostgresStore) -> None:
    """Nobody could renew while it was down."""
    short, long = Incarnation(id=b"short", executor="e"), Incarnation(id=b"long", executor="e")
    for who, lease in ((short, 1), (long, 3_600_000_000)):
        await store.register(who, lease, now=1)  # ran out long ago
    assert await store.bury([b"short", b"long"]) == [b"short"]
    assert await store.bury([b"long"], now=2**62) == [b"long"], "by a given clock the lease alone counts"
