"""A TCP proxy for Postgres that fails on order, knowing the protocol.

    proxy = Proxy("127.0.0.1", 5432)
    port = await proxy.start()

- ``delay`` (seconds) and ``throttle`` (bytes a second) hold back what passes, both ways;
- ``reset()`` ends all connections with RST; ``half_close()`` ends them towards the server only, so that the client
  waits for answers that nobody will give;
- ``blackhole()`` accepts and forwards nothing, old connections and new ones, until ``resume()``; what came meanwhile is
  forwarded then, as a network that comes back would;
- ``cut_after(n)`` ends the next connection once it has passed on n more bytes of the server's;
- ``lose_answer(pattern)``: the next time the server has *committed* a write whose SQL matches, its answer is dropped
  and the connection is reset: done, and the client never hears.

One connection that fails costs the others nothing. Counters say what was hit.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from chaos.wire import Conversation

CHUNK = 65536
LINGER_NOTHING = struct.pack("ii", 1, 0)  # closing sends RST


class Proxy:
    """See the head of this file. Belongs to one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.delay = 0.0
        self.throttle = 0.0
        self.connections: set[Pair] = set()
        self.accepted = 0
        self.resets = 0
        self.half_closed = 0
        self.lost: list[str] = []  # the SQL whose answer was dropped after the commit
        self._order: tuple[re.Pattern[str], int, asyncio.Future[str]] | None = None
        self._cut_after: int | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on a port of this host; which one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.heal()
        pairs = list(self.connections)
        for pair in pairs:
            pair.end(reset=True)
        await asyncio.gather(*(pair.ended.wait() for pair in pairs))

    # -- orders

    def heal(self) -> None:
        """Everything passes again; what was ordered and did not happen yet will not."""
        self.delay = self.throttle = 0.0
        self._cut_after = None
        if self._order is not None:
            self._order[2].cancel()
            self._order = None
        self._open.set()

    def blackhole(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        """The end of a blackhole."""
        self._open.set()

    def reset(self) -> int:
        """How many connections that ended."""
        pairs = list(self.connections)
        for pair in pairs:
            pair.end(reset=True)
        self.resets += len(pairs)
        return len(pairs)

    def half_close(self, which: Callable[[Pair], bool] = lambda _: True) -> int:
        """End connections towards the server, and keep them open towards the client; how many."""
        pairs = [pair for pair in self.connections if which(pair)]
        for pair in pairs:
            pair.half_close()
        self.half_closed += len(pairs)
        return len(pairs)

    def keepalive(self) -> int:
        """Find connections that are half open, as TCP does in the end, and end them with RST; how many."""
        pairs = [pair for pair in self.connections if pair.half]
        for pair in pairs:
            pair.end(reset=True)
        return len(pairs)

    def cut_after(self, count: int) -> None:
        self._cut_after = count

    def lose_answer(self, pattern: str = "", *, rows: int = 0) -> asyncio.Future[str]:
        """Order it once; done with the SQL when it has happened. ``rows``: the answer must have at least so many."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._order = (re.compile(pattern, re.IGNORECASE | re.DOTALL), rows, done)
        return done

    # -- asked by connections

    @property
    def losing(self) -> bool:
        return self._order is not None

    def loses(self, talk: Conversation) -> bool:
        """Whether the answer that is complete now is the one to be lost."""
        if self._order is None:
            return False
        pattern, rows, done = self._order
        sql = next((sql for sql in talk.last if pattern.search(sql)), None)
        if sql is None or talk.last_rows < rows:
            return False
        self._order = None
        self.lost.append(sql)
        if not done.done():
            done.set_result(sql)
        return True

    def left(self, passed: bytes) -> bytes | None:
        """None: all of it may pass; else what may, and then the connection ends."""
        if self._cut_after is None:
            return None
        if len(passed) < self._cut_after:
            self._cut_after -= len(passed)
            return None
        rest, self._cut_after = passed[: self._cut_after], None
        self.resets += 1
        return rest

    async def wait(self, data: bytes) -> None:
        """Until it may pass."""
        await self._open.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.throttle:
            await asyncio.sleep(len(data) / self.throttle)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pair = Pair(self, reader, writer)
        self.connections.add(pair)
        try:
            await pair.serve()
        finally:
            self.connections.discard(pair)
            pair.ended.set()


class Pair:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = (reader, writer)
        self.server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.talk = Conversation()
        self.ended = asyncio.Event()
        self.half = False
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    async def serve(self) -> None:
        await self.proxy.wait(b"")
        if self._over:
            return
        try:
            self.server = await asyncio.open_connection(*self.proxy.target)
        except OSError:
            self.end(reset=True)
            return
        self._tasks = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if self.half and not self._over:  # the client is left alone with an open connection
                await asyncio.wait(self._tasks)
        finally:
            self.end()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def end(self, *, reset: bool = False) -> None:
        """End both sides; ``reset``: with RST instead of a proper close."""
        if self._over:
            return
        self._over = True
        for side in (self.client, self.server):
            if side is not None:
                _close(side[1], reset=reset)
        for task in self._tasks:
            task.cancel()

    def half_close(self) -> None:
        self.half = True
        if self.server is not None:
            with suppress(OSError, RuntimeError):
                self.server[1].write_eof()

    async def _up(self) -> None:
        """From the client to the server."""
        assert self.server is not None
        with suppress(OSError):
            while data := await self.client[0].read(CHUNK):
                await self.proxy.wait(data)
                self.talk.client_says(data)
                if self.half:
                    continue  # into nothing
                self.server[1].write(data)
                await self.server[1].drain()

    async def _down(self) -> None:
        """From the server to the client. While an answer is to be lost, it is kept back until it is known which."""
        assert self.server is not None
        kept = b""
        with suppress(OSError):
            while data := await self.server[0].read(CHUNK):
                await self.proxy.wait(data)
                committed = self.talk.server_says(data)
                if committed and self.proxy.loses(self.talk):
                    self.end(reset=True)
                    return
                kept += data
                if self.proxy.losing and self.talk.writing and not committed:
                    continue
                data, kept = kept, b""
                if (rest := self.proxy.left(data)) is not None:
                    self.client[1].write(rest)
                    await self.client[1].drain()
                    self.end(reset=True)
                    return
                if not self.half:
                    self.client[1].write(data)
                    await self.client[1].drain()


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        connection: socket.socket | None = writer.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOTHING)
        writer.transport.abort()
        return
    with suppress(OSError, RuntimeError):
        writer.close()
