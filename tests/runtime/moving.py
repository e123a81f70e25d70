"""What the tests of resume, restart and fork share: a trip of three steps, and looks at runs."""

from __future__ import annotations

from typing import Any

from perdure import App, Event, Topic, current, recv, set_event
from perdure.model.ids import RunKey
from perdure.model.records import Record
from perdure.model.states import Reason, Status
from perdure.store.base import Store
from tests.runtime.support import Ledger, executor, row, until

stage = Event[str]("stage")
go = Topic[str]("go")


def store_of(app: Any) -> Store:
    store: Store = app._home.engine().line.store
    return store


async def run_of(app: Any, id: str, run: int) -> tuple[Any, list[Record]]:
    key = RunKey(id, run)
    return await store_of(app).run(key), (await store_of(app).histories([key]))[key]


def trip(app: App, ledger: Ledger) -> Any:
    """Two steps, a wait for a word, a third step."""

    @app.step(name="book")
    async def book(what: str) -> str:
        ledger.note(f"{what} {current().idempotency_key}")
        return f"{what}!"

    @app.workflow(name="trip")
    async def trip(who: str) -> list[str]:
        flight = await book("flight")
        await set_event(stage, "flown")
        hotel = await book("hotel")
        await set_event(stage, "slept")
        word = await recv(go)
        return [who, flight, hotel, word, await book("taxi")]

    return trip


def names(ledger: Ledger) -> list[str]:
    return [line.split()[0] for line in ledger]


async def hold(app: Any, id: str, reason: Reason = Reason.POLICY) -> None:
    """Hold a run that waits here."""
    executor(app).executions[id].hold(reason, "by hand")
    await until(lambda: held(app, id))


async def at_rest(app: Any, id: str) -> None:
    """It waits, and all that it wrote is durable."""
    await until(lambda: executor(app).executions[id].waiting)
    await executor(app).line.journal.drained()


async def held(app: Any, id: str) -> bool:
    return (await row(app, id)).status is Status.HELD
