"""A commit is driven from plain callbacks, in no task: no batch is so large that the driver would need one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from perdure.model.writes import Continue, Receipt, Unit
from perdure.store.base import Store
from perdure.store.drive import Drive
from perdure.store.postgres import PostgresStore
from tests.store.build import row, running, start, tok, unit

pytestmark = pytest.mark.postgres
MANY = 400


def going_on(ids: Sequence[str], claim: bytes) -> list[Unit]:
    """Together far more than the four buffers of 32 kB that the driver fills before it waits."""
    next_runs = [start(id, claim, run=2, input=b'"' + b"x" * 2000 + b'"') for id in ids]
    return [unit(next.id, claim, change=Continue(next, tok("wake"))) for next in next_runs]


def driven(store: Store, units: Sequence[Unit]) -> tuple[Drive[Receipt], asyncio.Future[Receipt]]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Receipt] = loop.create_future()

    def done(receipt: Receipt | None, error: BaseException | None) -> None:
        if error is not None:
            answer.set_exception(error)
        elif receipt is not None:
            answer.set_result(receipt)

    return Drive(store.commit(units), done, loop), answer


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Store]:
    store = PostgresStore(postgres_url, "app")
    await store.open()
    await store.migrate()
    yield store
    await store.close()


async def test_a_large_batch_is_written_at_the_first_try(store: Store) -> None:
    ids = [f"w{n}" for n in range(MANY)]
    drive, answer = driven(store, going_on(ids, await running(store, *ids)))
    asyncio.get_running_loop().call_soon(drive.begin)
    receipt = await answer
    assert all(verdict.applied for verdict in receipt.verdicts)
    assert (await row(store, ids[-1])).run == 2


async def test_one_that_is_dropped_leaves_the_connection_usable(store: Store) -> None:
    """Dropped later and later, until it has ended by itself: the next commit is written each time."""
    dropped = 0
    for waits in (1 << n for n in range(20)):
        ids = [f"{waits} {n}" for n in range(100)]
        units = going_on(ids, await running(store, *ids))
        drive, answer = driven(store, units)
        asyncio.get_running_loop().call_soon(drive.begin)
        for _ in range(waits):
            await asyncio.sleep(0)
        if answer.done():
            break
        drive.cancel()
        dropped += 1
        verdicts = (await store.commit(units)).verdicts  # as a next life would try it again, with the same nonces
        assert all(verdict.applied for verdict in verdicts)
    assert dropped
