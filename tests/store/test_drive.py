"""What is driven from callbacks, and dropped: nothing of it is left to be told of later."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from perdure.store.drive import Drive


async def test_the_error_of_what_a_dropped_one_waited_for_is_nobodys() -> None:
    """A connection is closed under it, which fails the wait: asyncio would print that it was never retrieved."""
    loop, said, told = asyncio.get_running_loop(), list[Any](), list[Any]()
    loop.set_exception_handler(lambda _, context: said.append(context))
    waits_for: asyncio.Future[None] = loop.create_future()

    async def work(on: asyncio.Future[None]) -> None:
        await on

    drive = Drive(work(waits_for), lambda *how: told.append(how), loop)
    drive.begin()
    drive.cancel()
    await asyncio.sleep(0)
    waits_for.set_exception(ConnectionError("closed in the middle"))
    await asyncio.sleep(0)
    del waits_for
    gc.collect()
    assert (said, told) == ([], [])
