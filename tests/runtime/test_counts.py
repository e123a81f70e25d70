"""What decides speed, counted instead of timed: commits in a row, statements of a workflow, reads that must not be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure.sync
from perdure import App, recv, write_stream
from perdure.model.records import Incarnation
from perdure.runtime.executor import POLL_SECONDS_MAX
from perdure.runtime.leases import BEATS
from perdure.runtime.queues import IN_A_ROW
from perdure.runtime.reaper import ROUND_SECONDS_MAX
from perdure.store.postgres.connection import Link
from tests.runtime.support import crash, executor, until

BACKGROUND = frozenset({"poll", "heartbeat", "incarnations", "bury"})  # by time, whatever runs
PLUMBING = frozenset({"open", "close", "migrate", "register", "leave", "on_hint", "schema_version"})
READS = frozenset({"histories", "inbox", "rows", "run", "inputs", "ended", "events", "streams", "list"})


class Counting:
    """A store that counts the calls of each of its methods."""

    def __init__(self, store: Any, calls: Counter[str]) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value) or name in PLUMBING:
            return value

        def call(*args: Any, **options: Any) -> Any:
            self._calls[name] += 1
            return value(*args, **options)

        return call


def sent(calls: Counter[str]) -> Counter[str]:
    """What was sent because of the workflows, not because time passed."""
    return Counter({name: count for name, count in calls.items() if name not in BACKGROUND})


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'perdure.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


def counted(url: str, calls: Counter[str]) -> Any:
    """An app that counts what it asks of its store, with a workflow of so many steps."""
    app: Any = App("counted", database=url)
    make = app._home.make_store
    app._home.make_store = lambda *args: Counting(make(*args), calls)

    @app.step
    async def step(i: int) -> int:
        return i

    @app.workflow
    async def work(steps: int) -> int:
        for i in range(steps):
            await step(i)
        return steps

    @app.workflow
    async def waits() -> int:
        return int(await recv("word"))

    @app.workflow
    async def recovering(steps: int) -> int:
        await work.__wrapped__(steps)
        return int(await recv("word"))

    @app.step
    async def writing(i: int) -> None:
        for n in range(i):
            await write_stream("numbers", n)

    @app.workflow
    async def writes(count: int) -> None:
        for n in range(count):
            await write_stream("numbers", n)
        await step(1)

    @app.workflow
    async def writes_in_a_step(count: int) -> None:
        await writing(count)

    app.work, app.waits, app.recovering = work, waits, recovering
    app.writes, app.writes_in_a_step = writes, writes_in_a_step
    return app


@pytest.fixture
async def app(url: str, calls: Counter[str]) -> AsyncIterator[Any]:
    app = counted(url, calls)
    async with app:
        await app.work(1)
        await app._home.engine().line.journal.drained()
        await until(lambda: app._home.engine().executor.queues._revision is not None)  # its first look has read them
        calls.clear()
        yield app


async def settled(app: Any) -> None:
    """Returns when what was made so far is written, and what it said to others is sent."""
    await app._home.engine().line.journal.drained()
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_workflow_of_one_step_is_two_commits(app: Any, calls: Counter[str]) -> None:
    await app.work(1)
    assert sent(calls)["commit"] == 2  # its start; its step with its end


async def test_each_further_step_is_one_commit(app: Any, calls: Counter[str]) -> None:
    await app.work(7)
    assert sent(calls)["commit"] == 8


async def test_without_steps_it_is_one_commit(app: Any, calls: Counter[str]) -> None:
    await app.work(0)
    assert sent(calls)["commit"] == 1


async def test_a_first_execution_asks_for_nothing_that_must_be_empty(app: Any, calls: Counter[str]) -> None:
    for _ in range(5):
        await app.work(3)
    await settled(app)
    assert not READS & set(calls), calls
    assert set(sent(calls)) <= {"commit", "hint"}


async def test_alone_it_costs_three_statements_at_most(app: Any, calls: Counter[str]) -> None:
    for _ in range(20):
        await app.work(1)
    await settled(app)
    assert sum(sent(calls).values()) <= 3 * 20, sent(calls)


async def test_what_comes_through_a_line_asks_for_mail_only_where_some_waits(app: Any, calls: Counter[str]) -> None:
    line = app.queue("line")
    handle = await app.waits.options(id="w", queue=line, delay=3600).start()
    await handle.send(7, "word")
    assert await (await app.work.options(queue=line).start(3)).result() == 3
    assert calls["claim_line"]
    assert not calls["inbox"]
    await handle.resume()
    assert await handle.result() == 7
    assert calls["inbox"] == 1


async def test_who_stands_in_line_is_let_in_without_a_look_before_it(url: str, calls: Counter[str]) -> None:
    """Started here, or (where a hint names the queue) by another process: one claim, and the commits."""
    app = counted(url, calls)
    line = app.queue("line")
    client = counted(url, Counter())
    async with client.connect(), app:  # what the client writes as it connects is no news to the app
        assert await (await app.work.options(queue=line).start(1)).result() == 1
        host = executor(app)
        host.polling = False
        host._stop_polling()
        await until(lambda: not (host._looking or host._tasks or host.reaper.under_way))
        for caller in [app] if url.startswith("sqlite") else [app, client]:
            calls.clear()
            handle = await caller.work.options(queue="line").start(1)
            await until(lambda: not host.executions and not host._looking and calls["commit"] >= 2)
            assert await handle.result() == 1
            assert calls["claim_line"] == 1, calls
            assert calls["poll"] == 0, calls
            assert calls["commit"] == (3 if caller is app else 2), calls  # (its start); a step's intent; its end


async def test_after_a_few_claims_without_a_look_there_is_a_look(app: Any, calls: Counter[str]) -> None:
    """However fast work is put in line, what no hint tells of is seen."""
    host = executor(app)
    host.polling = False
    host._stop_polling()
    line = app.queue("line")
    assert await (await app.work.options(queue=line).start(0)).result() == 0
    await until(lambda: not host._looking)
    calls.clear()
    for _ in range(3 * IN_A_ROW):
        assert await (await app.work.options(queue=line).start(0)).result() == 0
        await until(lambda: not host._looking)
    assert calls["poll"] >= 2, calls
    assert calls["poll"] <= 4, calls


async def test_a_start_and_its_result_read_nothing_in_the_same_process(app: Any, calls: Counter[str]) -> None:
    handle = await app.work.start(1)
    await handle.result()
    assert sent(calls)["commit"] == 2
    assert not READS & set(calls), calls


def blocking(url: str, calls: Counter[str], bodies: Any = None) -> Any:
    """The same of the sync face."""
    app: Any = perdure.sync.App("counted", database=url, bodies=bodies)
    make = app._home.make_store
    app._home.make_store = lambda *args: Counting(make(*args), calls)

    @app.step
    def step(i: int) -> int:
        return i

    @app.workflow
    def work(steps: int) -> int:
        for i in range(steps):
            step(i)
        return steps

    app.work = work
    return app


def test_a_blocking_workflow_is_as_few_commits(
    url: str, calls: Counter[str], bodies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this machine is: what a body writes waits for what it does next.
    monkeypatch.setattr("perdure.runtime.thread_body.PATIENCE_SECONDS", 30.0)
    with blocking(url, calls, bodies) as app:
        app.work(1)
        for steps in (1, 7):
            calls.clear()
            app.work(steps)
            assert sent(calls)["commit"] == 1 + steps
            assert not READS & set(calls), calls


def test_ends_of_blocking_starts_are_not_asked_for(url: str, calls: Counter[str]) -> None:
    with blocking(url, calls) as app:
        for handle in app.work.start_many([1] * 200):
            assert handle.result() == 1
        assert not READS & set(calls), calls


async def test_what_a_body_appends_costs_no_commit_of_its_own(app: Any, calls: Counter[str]) -> None:
    for count in (1, 50):
        calls.clear()
        await app.writes(count)
        assert sent(calls)["commit"] == 2
        assert not READS & set(calls), calls


async def test_what_a_step_appends_shares_commits(app: Any, calls: Counter[str]) -> None:
    await app.writes_in_a_step(200)
    assert sent(calls)["commit"] <= 4
    assert not READS & set(calls), calls


@pytest.mark.slow
async def test_at_load_a_workflow_costs_a_twentieth_of_a_statement(app: Any, calls: Counter[str]) -> None:
    count = 5000
    await asyncio.gather(*(app.work(1) for _ in range(count)))
    await settled(app)
    assert sum(sent(calls).values()) <= 0.05 * count, sent(calls)
    assert not READS & set(calls), calls


async def test_steps_of_many_workflows_share_commits(app: Any, calls: Counter[str]) -> None:
    workflows, steps = 100, 10
    await asyncio.gather(*(app.work(steps) for _ in range(workflows)))
    assert sent(calls)["commit"] <= 0.05 * workflows * steps, sent(calls)


async def test_a_bulk_start_is_as_few_commits_as_one(app: Any, calls: Counter[str]) -> None:
    handles = await app.work.start_many([1] * 400)
    for handle in handles:
        await handle.result()
    assert sent(calls)["commit"] <= 10, sent(calls)


async def test_results_of_a_bulk_start_are_not_asked_for_one_by_one(app: Any, calls: Counter[str]) -> None:
    handles = await app.work.start_many([1] * 400)
    for handle in handles:
        await handle.result()
    assert sum(calls[name] for name in READS) <= 0.05 * len(handles), calls


async def test_whoever_waits_costs_no_query(app: Any, calls: Counter[str]) -> None:
    handles = [await app.waits.start() for _ in range(200)]
    await settled(app)
    await until(lambda: executor(app)._looking is None)
    calls.clear()
    await executor(app)._look_once()
    assert set(calls) <= {"poll"}, calls  # one look for all two hundred
    for handle in handles:
        await handle.send(1, "word")
    for handle in handles:
        assert await handle.result() == 1


async def test_histories_of_all_that_is_recovered_are_read_at_once(url: str, calls: Counter[str]) -> None:
    first = counted(url, calls)
    await first.open()
    handles = [await first.recovering.start(5) for _ in range(50)]
    await until(lambda: all(one.run.seq == 5 for one in executor(first).executions.values()))
    await settled(first)
    await crash(first)
    calls.clear()
    second = counted(url, calls)
    async with second:
        executor(second).reaper.stop()  # the round of the launch alone is counted
        await until(lambda: len(executor(second).executions) == len(handles))
        assert calls["histories"] == 1
        assert calls["inbox"] <= 1 + len(handles) // 200
        assert calls["adopt"] <= 3  # the second finds nothing more, the third no suspects
        for handle in handles:
            await second.client.handle(handle.id).send(1, "word")
        for handle in handles:
            await second.client.handle(handle.id).result()


# -- on the wire


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every statement that asyncpg sends, whoever asks for it."""
    from asyncpg import Connection
    from asyncpg.prepared_stmt import PreparedStatement

    seen: list[str] = []

    def count(cls: Any, name: str, text: Any) -> None:
        real = getattr(cls, name)

        def call(self: Any, *args: Any, **options: Any) -> Any:
            seen.append(text(self, args))
            return real(self, *args, **options)

        monkeypatch.setattr(cls, name, call)

    for name in ("fetch", "fetchrow", "fetchval"):
        count(PreparedStatement, name, lambda self, _args: self.get_query())
        count(Connection, name, lambda _self, args: args[0])
    count(Connection, "execute", lambda _self, args: args[0])
    return seen


@pytest.mark.postgres
async def test_on_the_wire_a_commit_is_one_statement(postgres_url: str, statements: list[str]) -> None:
    calls: Counter[str] = Counter()
    app = counted(postgres_url, calls)
    async with app:
        for _ in range(3):
            await app.work(2)  # every statement is prepared, every connection made
        await settled(app)
        calls.clear()
        statements.clear()
        workflows = 10
        for _ in range(workflows):
            await app.work(1)
        writing = [text for text in statements if "insert into" in text]
        hints = [text for text in statements if "pg_notify" in text]
        assert len(writing) == calls["commit"] == 2 * workflows
        assert len(writing) + len(hints) <= 3 * workflows
        own = [text for text in statements if text.strip().lower() in ("begin", "commit", "rollback")]
        assert not own  # no transaction around one statement


WRITES = frozenset({"commit", "claim", "adopt", "reclaim", "upgrade", "adopt_strays", "release_orphans", "note_trials"})


async def test_an_idle_executor_writes_nothing_but_its_heartbeats(url: str, calls: Counter[str]) -> None:
    app: Any = App("counted", database=url, lease=1)
    make = app._home.make_store
    app._home.make_store = lambda *args: Counting(make(*args), calls)
    async with app:
        before = calls["heartbeat"]
        await until(lambda: calls["heartbeat"] >= before + 3)
        [me] = await app._home.engine().line.store.incarnations()
        assert me.beats in (calls["heartbeat"] - 1, calls["heartbeat"])  # one write each; the last may be on its way
        assert {name: calls[name] for name in WRITES if calls[name]} == {}


# -- idle


def idle(url: str, calls: Counter[str]) -> Any:
    """An app with queues, schedules that are not due for long, and a workflow that waits."""
    app: Any = App("idle", database=url)
    make = app._home.make_store
    app._home.make_store = lambda *args: Counting(make(*args), calls)
    for n in range(20):
        app.queue(f"queue-{n}", concurrency=1 + n)

        @app.schedule(every=timedelta(days=30 + n), name=f"schedule-{n}")
        @app.workflow(name=f"at-{n}")
        async def at() -> None: ...

    @app.workflow
    async def waits(_n: int) -> None:
        await recv("word")

    app.waits = waits
    return app


@pytest.fixture
def sent_on_links(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that a Postgres store sends, whatever called for it; but for heartbeats."""
    seen: list[str] = []
    prepare = Link.prepare

    async def counting(link: Link, sql: str) -> Any:
        seen.extend([] if sql.startswith("update perdure.incarnation") else [sql])
        return await prepare(link, sql)

    monkeypatch.setattr(Link, "prepare", counting)
    return seen


async def test_idle_it_asks_less_than_twice_a_second(
    url: str, calls: Counter[str], quick_eviction: None, sent_on_links: list[str]
) -> None:
    """Whatever there is: 20 queues, 20 schedules, and many that wait. Notifications or not."""
    app = idle(url, calls)
    async with app:
        host = executor(app)
        await app.waits.start_many(range(200))
        await until(lambda: not host.executions)
        host.polling = False
        host._stop_polling()
        await until(lambda: not (host._looking or host._tasks or host.reaper.under_way))
        await host._round()  # whatever comes once a minute or less often
        await until(lambda: not host._tasks)

        async def counted(act: Callable[[], Awaitable[None]]) -> int:
            calls.clear()
            sent_on_links.clear()
            await act()
            await until(lambda: not host._tasks)
            count = calls.total() - calls["heartbeat"]
            assert len(sent_on_links) == (0 if url.startswith("sqlite") else count), (calls, sent_on_links)
            return count

        a_look = await counted(host._look_once)
        a_round = await counted(host._round)
        assert (a_look, a_round) == (1, 3), calls
        a_second = a_look / POLL_SECONDS_MAX + a_round / ROUND_SECONDS_MAX + BEATS / host.reaper.guards._lease
        assert a_second <= 1.9, "the last tenth is for what comes once a minute"
        assert POLL_SECONDS_MAX <= 1.0, "without notifications a wake takes this long"


async def test_whoever_is_killed_costs_a_round_no_more_once_it_is_taken_over(url: str, calls: Counter[str]) -> None:
    """The dead stay in the roll for a minute: what they had is looked for only while they have it."""
    app = idle(url, calls)
    async with app:
        host = executor(app)
        host.polling = False
        host._stop_polling()
        gone = Incarnation(id=b"gone".ljust(16, b"."), executor="gone", version=host.version)
        await app._home.engine().line.store.register(gone, 1)
        await host._round()
        await until(lambda: not host._tasks)
        assert calls["bury"] == 1
        await host._round()
        await until(lambda: not host._tasks)
        calls.clear()
        await host._round()
        await until(lambda: not host._tasks)
        assert calls.total() - calls["heartbeat"] == 3, calls
