"""The longest names, keys and ids that are taken fit the indexes of both stores, all at once."""

from __future__ import annotations

import random

from perdure import App, recv, set_event, write_stream
from perdure.model.ids import ID_BYTES_MAX
from perdure.model.queues import NAME_MAX, PARTITION_MAX
from perdure.model.text import KEY_BYTES_MAX, NAME_BYTES_MAX, VERSION_MAX

_chance = random.Random(7)


def noise(length: int) -> str:
    """Text of ASCII that no index can compress."""
    return "".join(_chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=length))


def wide(length: int) -> str:
    """Printable text of four bytes a character."""
    return "".join(chr(_chance.randint(0x20000, 0x2A6D0)) for _ in range(length))


async def test_the_longest_texts_fit_the_indexes(database: str) -> None:
    name, key, queue, version = noise(NAME_BYTES_MAX), noise(KEY_BYTES_MAX), wide(NAME_MAX), wide(VERSION_MAX)
    app = App(noise(100), database=database, version=version)
    app.queue(queue, concurrency=1)

    @app.workflow(name=name)
    async def body() -> object:
        await set_event(name, 1)
        await write_stream(name, 1)
        return await recv(name)

    async with app:
        started = body.options(
            id=noise(ID_BYTES_MAX), queue=queue, partition=wide(PARTITION_MAX), dedup=key, version=version
        )
        handle = await started.start()
        for _ in range(2):
            await handle.send(7, name, key=key)
        assert await handle.get_event(name) == 1
        assert await handle.result(timeout=15) == 7
