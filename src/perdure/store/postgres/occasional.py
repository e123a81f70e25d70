"""A connection for what is asked now and then: made for who asks first, let go when nobody has asked for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from perdure.store.postgres.connection import SETTINGS, Link

IDLE_SECONDS = 30.0


class Occasional:
    """See the head of this file."""

    def __init__(self, url: str, settings: Mapping[str, str] = SETTINGS) -> None:
        self._url = url
        self._settings = settings
        self._link = Link(url, settings)
        self._asked = 0
        self._idle: asyncio.TimerHandle | None = None
        self._resting: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._link.open()

    async def close(self) -> None:
        self._stay()
        if self._resting is not None:
            await self._resting
        await self._link.close()

    @asynccontextmanager
    async def link(self) -> AsyncGenerator[Link]:
        """The connection, which stays while somebody is within."""
        self._stay()
        self._asked += 1
        try:
            yield self._link
        finally:
            self._asked -= 1
            if not self._asked:
                self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._rest)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        """Nobody asks: let the connection go. Whoever comes meanwhile makes another."""
        link, self._link = self._link, Link(self._url, self._settings)
        self._link.open()
        self._resting = asyncio.get_running_loop().create_task(link.close())
