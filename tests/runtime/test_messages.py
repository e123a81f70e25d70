"""Messages: topics, order, keys, who can be sent to, and time running out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import perdure.sync
from perdure import App, Topic, recv, sleep
from perdure.errors import DefinitionError, Unserializable, WorkflowClosed, WorkflowNotFound
from perdure.model.records import Kind, Message
from perdure.model.writes import Receipt, Unit
from perdure.runtime.execution import Execution
from perdure.testing import harness
from tests.runtime.support import Ledger, crash, executor, history, in_memory, kinds, until


@dataclass
class Payment:
    id: str
    cents: int


paid = Topic[Payment]("paid")


async def test_a_message_arrives_typed(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        payment = await recv(paid)
        return [type(payment).__name__, payment.id, str(payment.cents)]

    async with app:
        handle = await body.options(id="a").start()
        await handle.send(Payment("p", 1999), paid)
        assert await handle.result() == ["Payment", "p", "1999"]


async def test_topics_are_apart_and_no_topic_is_a_topic_of_its_own(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return [await recv(), await recv("b"), await recv("a"), str(await recv("c", timeout=0.01))]

    async with app:
        handle = await body.options(id="x").start()
        await handle.send("to a", "a")
        await handle.send("to b", "b")
        await handle.send("to none")
        assert await handle.result() == ["to none", "to b", "to a", "None"]


async def test_first_in_first_out_per_topic(app: App) -> None:
    @app.workflow
    async def body(count: int) -> list[int]:
        return [await recv("n") for _ in range(count)]

    async with app:
        handle = await body.options(id="x").start(30)
        for n in range(30):
            await handle.send(n, "n")
        assert await handle.result() == list(range(30))


async def test_first_in_first_out_from_one_workflow(app: App) -> None:
    @app.workflow
    async def receiver(count: int) -> list[int]:
        return [await recv("n") for _ in range(count)]

    @app.workflow
    async def sender(count: int) -> None:
        for n in range(count):
            await receiver.handle("r").send(n, "n")

    async with app:
        handle = await receiver.options(id="r").start(10)
        await sender.options(id="s")(10)
        assert await handle.result() == list(range(10))


async def test_messages_sent_before_recv_wait(app: App) -> None:
    ready = asyncio.Event()

    @app.step
    async def slow() -> None:
        await ready.wait()

    @app.workflow
    async def body() -> list[str]:
        await slow()
        return [await recv("t"), await recv("t")]

    async with app:
        handle = await body.options(id="a").start()
        await handle.send("one", "t")
        await handle.send("two", "t")
        ready.set()
        assert await handle.result() == ["one", "two"]


async def test_messages_sent_while_nobody_works_wait(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return [await recv("t"), await recv("t")]

    async with app.connect():
        handle = await body.options(id="a").start()
        await handle.send("one", "t")
        await handle.send("two", "t")
    async with app:
        assert await body.handle("a").result() == ["one", "two"]


async def test_a_key_delivers_once(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return [str(await recv("t")), str(await recv("t")), str(await recv("t", timeout=0.05))]

    async with app:
        handle = await body.options(id="a").start()
        for _ in range(3):
            await handle.send("one", "t", key="k1")
        await handle.send("two", "t", key="k2")
        assert await handle.result() == ["one", "two", "None"]


async def test_a_key_is_remembered_after_the_message_was_taken_and_over_restarts(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        first = await recv("t")
        return [first, str(await recv("t", timeout=0.3))]

    async with app:
        handle = await body.options(id="a").start()
        await handle.send("one", "t", key="k")
        await until(lambda: history(app, "a"))
        await handle.send("one", "t", key="k")
    async with app:
        await body.handle("a").send("one", "t", key="k")
        assert await body.handle("a").result() == ["one", "None"]


@pytest.mark.parametrize("key", ["k\ud800", "k\0", 7, "x" * 1025, "\u4e00" * 342])
async def test_a_key_that_cannot_be_stored_is_refused_at_the_call(app: App, ledger: Ledger, key: Any) -> None:
    """In a workflow, too: it would be refused by the store with all that the workflow had done before."""

    @app.step
    async def pay() -> str:
        ledger.note("paid")
        return "receipt"

    @app.workflow
    async def waits() -> None:
        await recv("t")

    @app.workflow
    async def sends() -> str:
        receipt = await pay()
        try:
            await waits.handle("w").send("v", "t", key=key)
        except DefinitionError as refused:
            return f"{receipt}: {refused}"
        return receipt

    async with app:
        handle = await waits.options(id="w").start()
        with pytest.raises(DefinitionError, match="cannot be a message's key: a string of at most 1024 bytes"):
            await handle.send("v", "t", key=key)
        assert (await sends()).startswith("receipt: key=")
    assert ledger == ["paid"]


async def test_none_cannot_be_sent(app: App) -> None:
    @app.workflow
    async def body() -> str:
        try:
            await body.handle("b").send(None)
        except Unserializable as error:
            return str(error)
        return "no error"

    async with app:
        assert "recv answers None when its time is up" in await body()
        with pytest.raises(Unserializable, match="None was sent on topic 't'"):
            await body.handle("a").send(None, "t")


async def test_an_unknown_id_is_an_error(app: App) -> None:
    @app.workflow
    async def body() -> str:
        try:
            await body.handle("nobody").send(1)
        except WorkflowNotFound as error:
            return str(error)
        return "no error"

    async with app:
        with pytest.raises(WorkflowNotFound, match="has no workflow 'nobody'"):
            await body.handle("nobody").send(1)
        assert "has no workflow 'nobody'" in await body()


async def test_a_closed_workflow_takes_no_messages(app: App) -> None:
    @app.workflow
    async def quick() -> None: ...

    @app.workflow
    async def body() -> str:
        try:
            await quick.handle("a").send(1)
        except WorkflowClosed as error:
            return str(error)
        return "no error"

    async with app:
        await quick.options(id="a")()
        with pytest.raises(WorkflowClosed, match="workflow 'a' is completed and takes no more messages"):
            await quick.handle("a").send(1)
        assert "'a' is completed and takes no more messages" in await body()


async def test_a_timeout_answers_none_and_the_late_message_stays(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        first = await recv("t", timeout=timedelta(milliseconds=50))
        await recv("go")
        return [str(first), str(await recv("t"))]

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: history(app, "a"))
        await handle.send("late", "t")
        await handle.send(True, "go")
        assert await handle.result() == ["None", "late"]


async def test_what_is_there_comes_before_a_time_that_is_up(app: App, database: str) -> None:
    """Also where both happen within one call of the clock: a sleep ends, and the wait after it is up at once."""

    @app.workflow
    async def body() -> list[str | None]:
        await sleep(5)
        return [await recv("t", timeout=0), await recv("t", timeout=0), await recv("t", timeout=0)]

    async with harness(app, database=database):
        handle = await body.options(id="a").start()
        await handle.send("one", "t")
        await handle.send("two", "t")
        assert await handle.result() == ["one", "two", None]


async def test_a_timeout_of_zero_takes_what_is_there(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        await recv("go")
        return [str(await recv("t", timeout=0)), str(await recv("t", timeout=0))]

    async with app:
        handle = await body.options(id="a").start()
        await handle.send("there", "t")
        await handle.send(True, "go")
        assert await handle.result() == ["there", "None"]


async def test_what_was_taken_is_taken_once_whatever_crashes(app: App, ledger: Ledger) -> None:
    @app.step
    async def effect(what: str) -> None:
        ledger.note(what)

    @app.workflow
    async def body() -> list[str]:
        taken = []
        for _ in range(3):
            taken.append(await recv("t"))
            await effect(taken[-1])
        return taken

    await app.open()
    handle = await body.options(id="a").start()
    for n in range(3):
        await handle.send(f"m{n}", "t")
        await until(lambda n=n: steps_done(app, n + 1))
        if n < 2:
            await until(lambda: in_memory(app, "a"))
            await crash(app)
            await app.open()
    assert await handle.result() == ["m0", "m1", "m2"]
    assert ledger == ["m0", "m1", "m2"]


async def steps_done(app: App, count: int) -> bool:
    return [r.kind.name for r in await history(app, "a")].count("STEP") == count


async def test_two_receivers_of_one_workflow_take_turns(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return sorted(await asyncio.gather(recv("t"), recv("t"), recv("u")))

    async with app:
        handle = await body.options(id="a").start()
        for value, topic in (("1", "t"), ("2", "t"), ("3", "u")):
            await handle.send(value, topic)
        assert await handle.result() == ["1", "2", "3"]


async def test_a_recv_that_lost_a_race_takes_nothing(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        try:
            async with asyncio.timeout(0.05):
                await recv("t")
        except TimeoutError:
            pass
        return [await recv("t")]

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: history(app, "a"))
        await handle.send("kept", "t")
        assert await handle.result() == ["kept"]


async def test_a_send_in_a_workflow_is_delivered_exactly_once_over_replays(app: App) -> None:
    @app.workflow
    async def receiver() -> list[str]:
        return [str(await recv("t")), str(await recv("t", timeout=0.6))]

    @app.workflow
    async def sender() -> str:
        await receiver.handle("r").send("once", "t")
        await sleep(0.2)
        return "sent"

    async with app:
        await receiver.options(id="r").start()
        await sender.options(id="s").start()
        await until(lambda: history(app, "s"))
    async with app:
        assert await sender.handle("s").result() == "sent"
        assert await receiver.handle("r").result() == ["once", "None"]
        assert (await kinds(app, "s"))[0] == "SEND r t NONE"


def test_messages_of_the_sync_face(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body() -> list[str]:
        payment = perdure.sync.recv(paid)
        return [payment.id, perdure.sync.recv("t"), str(perdure.sync.recv("t", timeout=0.05))]

    @sync_app.workflow
    def sender() -> None:
        body.handle("a").send("from a workflow", "t")

    with sync_app:
        handle = body.options(id="a").start()
        handle.send(Payment("p", 1), paid, key="k")
        handle.send(Payment("p", 1), paid, key="k")
        sender()
        assert handle.result() == ["p", "from a workflow", "None"]
        with pytest.raises(WorkflowClosed):
            handle.send(1)


def note_units(app: App, units: list[Unit], monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on ``units`` gets what the app commits."""
    store = app._home.engine().line.journal._store
    commit = store.commit

    async def noting(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        units.extend(batch)
        return await commit(batch, now=now)

    monkeypatch.setattr(store, "commit", noting)


async def test_a_message_that_comes_in_mid_burst_is_taken_with_its_record(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long burst is interrupted for others. What comes meanwhile waits: a mark without its record would lose it."""
    monkeypatch.setattr("perdure.runtime.loop.WorkflowLoop.burst_callbacks_max", 1)
    box = Topic[int]("box")
    app = App("shop", database=database)
    units: list[Unit] = []

    spins, ended, came = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.step
    async def quick() -> None: ...

    @app.step
    async def ends_in_mid_burst() -> None:
        await spins.wait()
        ended.set()

    @app.workflow
    async def spinning() -> int:
        taking, other = asyncio.create_task(recv(box)), asyncio.create_task(ends_in_mid_burst())
        await quick()
        spins.set()
        while not came.is_set():  # noqa: ASYNC110  turns of the body's own loop
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        await other
        return await taking

    real = Execution.mail

    def mail(self: Execution, messages: list[Message], wake: bytes | None = None) -> None:
        real(self, messages, wake)
        came.set()

    monkeypatch.setattr(Execution, "mail", mail)
    async with app:
        note_units(app, units, monkeypatch)
        handle = await spinning.start()
        await ended.wait()
        await handle.send(7, box)
        assert await handle.result() == 7
    taken = [seq for unit in units for _, seq in unit.taken]
    received = [record.seq for unit in units for record in unit.records if record.kind is Kind.RECV]
    assert taken == received
    assert len(taken) == 1


async def test_a_message_makes_a_long_burst_and_the_next_one_waits_for_its_end(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait in the inbox for two receivers; the first handed over begins a burst that is interrupted."""
    monkeypatch.setattr("perdure.runtime.loop.WorkflowLoop.burst_callbacks_max", 1)
    app = App("shop", database=database)
    units: list[Unit] = []
    begun, sent = asyncio.Event(), asyncio.Event()

    def received() -> list[list[int]]:
        found = [[record.seq for record in unit.records if record.kind is Kind.RECV] for unit in units]
        return [seqs for seqs in found if seqs]

    @app.step
    async def gate() -> None:
        begun.set()
        await sent.wait()

    @app.workflow
    async def body() -> list[int]:
        async def one(topic: str) -> int:
            value = await recv(topic)
            while not received():  # noqa: ASYNC110  turns of the body's own loop
                await asyncio.sleep(0)
            return int(value)

        await gate()
        return await asyncio.gather(one("a"), one("b"))

    async with app:
        note_units(app, units, monkeypatch)
        handle = await body.start()
        await begun.wait()
        await handle.send(1, "a")
        await handle.send(2, "b")
        await until(lambda: has_mail(app, handle.id, "a", "b"))
        sent.set()
        assert await handle.result() == [1, 2]
    assert [[seq for _, seq in unit.taken] for unit in units if unit.taken] == received()
    assert len(received()) == 2


def has_mail(app: App, id: str, *topics: str) -> bool:
    execution = executor(app).executions[id]
    return all(execution.has_mail(topic) for topic in topics)
