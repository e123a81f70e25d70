"""What the tests of batches share: orders, targets, a clock that the test moves."""

from __future__ import annotations

from typing import Any, cast

from perdure import Client
from perdure.batches import Cancel
from perdure.model.batches import BatchRow
from perdure.model.ids import TokenMaker
from perdure.model.states import Reason
from perdure.model.writes import Hold
from perdure.operations import batches
from perdure.operations.batches import BatchOrder, Work
from perdure.operations.look import Order
from perdure.store.base import Store
from tests.store.build import dump, outside, record, running, start, unit

WHY = "v2 loses orders"
NOW = 1_900_000_000_000_000
IDS = tuple(f"w{n}" for n in range(8))
token = TokenMaker()


async def queued(store: Store, *ids: str, **more: Any) -> None:
    await store.commit([outside(children=[start(id, **more) for id in ids])])


async def held(store: Store, *ids: str, reason: Reason = Reason.NONDETERMINISM, **more: Any) -> None:
    claim = await running(store, *ids, **more)
    await store.commit([unit(id, claim, records=[record(1)], change=Hold(reason, "why")) for id in ids])


async def statuses(store: Store, *ids: str) -> list[str]:
    rows = await store.rows(ids)
    return [str(rows[id].status) if id in rows else "gone" for id in ids]


async def told(client: Client, key: str) -> dict[str, str]:
    return {one.id: f"{one.state}: {one.detail}" async for one in client.batch_handle(key).targets()}


def order(**more: Any) -> BatchOrder:
    fields: dict[str, Any] = {"verb": Cancel(), "query": "id IS NOT NULL", "order": Order(by="ann", reason=WHY)}
    return BatchOrder(**{**fields, "key": "k", **more})


async def begun(store: Store, owner: bytes, **more: Any) -> Work:
    row, _ = await batches.create(store, order(**more), token, owner)
    return Work(store, row, owner, token)


async def to_the_end(work: Work) -> BatchRow:
    while not work.finished:
        await work.step()
    return work.row


async def audited(store: Store, key: str, *ids: str) -> dict[str, int]:
    lines = await store.batches.audits(key, ids)
    return {id: sum(line.id == id for line in lines) for id in ids}


async def row_of(store: Store, id: str) -> Any:
    return (await store.rows([id]))[id]


class Clocked:
    """A store whose clock goes as the test says; ``sleep`` puts it forward."""

    def __init__(self, store: Store, now: int) -> None:
        self.app = store.app
        self.now = now
        self.slept: list[float] = []
        self._store = store

    @property
    def batches(self) -> Any:
        return self

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e6)

    def __getattr__(self, name: str) -> Any:
        own = ("create", "apply", "change", "get", "targets", "audits")
        method = getattr(self._store.batches if name in own else self._store, name)
        if name not in ("create", "apply", "change", "poll"):
            return method

        async def call(*args: Any, **named: Any) -> Any:
            return await method(*args, **named, now=self.now)

        return call

    async def begun(self, owner: bytes, **more: Any) -> Work:
        made, _ = await batches.create(cast("Store", self), order(**more), token, owner)
        return self.work(made, owner)

    def work(self, row: BatchRow, owner: bytes) -> Work:
        return Work(cast("Store", self), row, owner, token, sleep=self.sleep)


async def tables(store: Store) -> Any:
    """All rows of all tables."""
    made: Any = store
    made.test_url = getattr(getattr(store, "_writing", None), "url", "")
    return await dump(store)
