"""How long a call from outside waits for a database that does not answer, and what it says it knows in the end."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from perdure import App, recv
from perdure.client.bounded import READS
from perdure.errors import DatabaseTrouble, DatabaseUnavailable, LostAnswer
from perdure.operations.problems import problems_of
from perdure.process import Process, State
from perdure.store.base import Store
from perdure.store.batches import Batches
from tests.runtime.support import until

PATIENCE = 0.2


@pytest.fixture
async def app(database: str) -> AsyncIterator[App]:
    app = App("shop", database=database, patience=PATIENCE)
    yield app
    await app.close()


class Away:
    """The database of an open app, away when told so; ``how``: what a call of the store meets."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.now = False
        self.line = app._home.engine().line
        self.how: Callable[[Any], Any] = self.refuses
        for name in names:
            monkeypatch.setattr(self.line.store, name, self._between(getattr(self.line.store, name)))

    def _between(self, real: Any) -> Any:
        async def asked(*args: Any, **named: Any) -> Any:
            return await (self.how(lambda: real(*args, **named)) if self.now else real(*args, **named))

        asked.__name__ = real.__name__
        return asked

    async def refuses(self, _call: Any) -> Any:
        raise DatabaseTrouble("nobody there")

    async def loses(self, call: Any) -> Any:
        await call()
        raise LostAnswer("broken off")

    async def hangs(self, _call: Any) -> Any:
        await asyncio.Event().wait()


async def unavailable(call: Any) -> DatabaseUnavailable:
    async with asyncio.timeout(10):
        with pytest.raises(DatabaseUnavailable) as caught:
            await call
    return caught.value


@pytest.mark.parametrize("how", ["refuses", "loses", "hangs"])
async def test_a_start_says_what_is_known_of_it(app: App, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app.connect() as client:
        away = Away(app, monkeypatch, "commit")
        away.how, away.now = getattr(away, how), True
        error = await unavailable(body.options(id="a").start())
        assert error.unknown == (how != "refuses")
        if how == "refuses":
            assert str(error) == (
                "the database has not answered for 0.2 s (patience): nobody there. "
                "Nothing was changed by this call, and nothing will be: repeat it when the database is back"
            )
        else:
            assert "or will yet, is unknown: repeat it with .options(id='a') or --id a, which starts it once" in str(
                error
            )
        away.now = False
        away.line.journal.abort() if how == "hangs" else await away.line.journal.drained()
        assert await client.count() == (1 if how == "loses" else 0), "what was given up is not written later"
        if how != "hangs":
            assert (await body.options(id="a").start()).id == "a"
            assert await client.count() == 1


async def test_what_was_not_given_an_id_tells_the_one_it_has(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.workflow
    async def body() -> None: ...

    async with app.connect() as client:
        away = Away(app, monkeypatch, "commit")
        away.how, away.now = away.loses, True
        said = str(await unavailable(body.start()))
        [there] = [info.id async for info in client.list()]
        assert f"repeat it with .options(id={there!r})" in said


async def test_a_message_a_cancel_and_a_queue(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app.connect() as client:
        handle = await body.options(id="a").start()
        away = Away(app, monkeypatch, "commit", "cancel", "change_queue")
        away.how, away.now = away.loses, True
        assert "with the same key, which delivers it once" in str(await unavailable(handle.send("x", key="k")))
        assert "sent again, it may be delivered twice" in str(await unavailable(handle.send("y")))
        assert "cancel it again, which changes nothing more" in str(await unavailable(handle.cancel()))
        assert "look before you repeat it" in str(await unavailable(client.set_queue("q", concurrency=1)))
        away.how = away.refuses
        for call in (handle.send("x", key="k"), handle.cancel(), client.set_queue("q", concurrency=2)):
            assert not (await unavailable(call)).unknown


async def test_reads_never_leave_a_doubt(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app.connect() as client:
        handle = await body.options(id="a").start()
        away = Away(app, monkeypatch, "rows", "count", "list", "fates", "events", "queues", "routing")
        for how in (away.refuses, away.loses, away.hangs):
            away.how, away.now = how, True
            for call in (
                handle.status(), client.count(), anext(client.list()), handle.result(), handle.get_event("e"),
                client.queues(),
            ):  # fmt: skip
                assert not (await unavailable(call)).unknown
            away.now = False
        assert await handle.status() == "queued"


async def test_a_time_that_was_given_holds_instead(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app.connect():
        handle = await body.options(id="a").start()
        away = Away(app, monkeypatch, "rows", "fates", "events")
        away.now = True
        assert await handle.get_event("e", timeout=0.01) is None
        asked = asyncio.create_task(handle.result(timeout=60))
        await until(lambda: away.line.waiting_out)
        assert isinstance(await unavailable(handle.status()), DatabaseUnavailable)
        assert not asked.done()
        asked.cancel()


async def test_who_waits_for_a_workflow_is_not_cut_off_while_the_database_answers(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app:
        handle = await body.options(id="a").start()
        waiting = [asyncio.create_task(handle.result()), asyncio.create_task(body.options(id="a")())]
        away = Away(app, monkeypatch, "rows")
        away.now = True
        await unavailable(handle.status())
        await unavailable(handle.status())  # twice its patience: what they wait for is no answer of the database
        assert not any(task.done() for task in waiting)
        away.now = False
        await handle.send("on")
        assert await asyncio.gather(*waiting) == ["on", "on"]


async def test_an_order_to_a_process_that_was_sent_is_not_called_undone(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.process
    class Door(Process):
        closed = State(initial=True, settable=True)
        open = State()
        push = closed.to(open)
        pull = open.to(closed)

    async with app:
        door = await Door.options(id="d").start()
        away = Away(app, monkeypatch, "streams")
        await door.within(10).execute("push")
        away.now = True
        error = await unavailable(door.set_state("closed", reason="test"))
        assert error.unknown, error
        assert "the order is carried out at most once; see the history of process 'd'" in str(error)


def test_what_only_reads_is_named_as_stores_name_it() -> None:
    made_of_them = {"gone", "hand", "measure", problems_of.__name__}
    assert {name for name in READS - made_of_them if not hasattr(Store, name) and not hasattr(Batches, name)} == set()


def test_the_error_survives_a_pickle() -> None:
    error = DatabaseUnavailable("away", unknown=True)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.unknown) == ("away", True)
