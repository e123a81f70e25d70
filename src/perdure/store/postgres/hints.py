"""Hints between processes: NOTIFY, gathered and off the commit path; LISTEN, again after every break.

Promises: nothing rests on a hint; sending never raises and never waits; what this process sent is not told to itself;
a connection that broke while listening is made anew, and whoever listens is then told once, since hints may be lost.
Behind a transaction pooler nothing is heard, unless the URL also names the server itself (``direct=``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Collection
from contextlib import suppress

from perdure.store.drive import Drive
from perdure.store.postgres.connection import Connection, Link
from perdure.store.postgres.pooler import way_of

EVERY_SECONDS = 0.005
NAMED_MAX = 16  # queues that one hint names; of more, it says that anything may have happened
AGAIN_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


def channel_of(schema: str, app: str) -> str:
    return "perdure_" + hashlib.blake2b(f"{schema}\0{app}".encode(), digest_size=8).hexdigest()


def payload(who: str, said: Collection[str]) -> str:
    """Who says it, and of which queues; of none, anything may have happened."""
    return who if "" in said or len(said) > NAMED_MAX else "\x1f".join([who, *said])


def read(payload: str) -> tuple[str, list[str]]:
    """The same backwards."""
    who, *queues = payload.split("\x1f")
    return who, queues


class Hints:
    """One store's voice and ear, on a connection of its own."""

    def __init__(self, url: str, schema: str, app: str) -> None:
        self.channel = channel_of(schema, app)
        self._me = os.urandom(8).hex()
        self._link = Link(way_of(url).direct or url)
        self._link.when_made(self._listen_on)
        self._callbacks: list[Callable[[Collection[str]], None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._sending: Drive[None] | asyncio.Task[None] | None = None
        self._said: dict[str, None] = {}  # what is to be sent: queues, "" for anything
        self._broke = asyncio.Event()
        self._closed = True

    def open(self) -> None:
        self._closed = False
        self._link.open()

    async def close(self) -> None:
        self._closed = True
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.sleep(0)  # it ends, and drops a connection that it was using
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._listening = self._sending = None
        await self._link.close()

    def send(self, queue: str = "") -> None:
        """Soon, once, however often this is called meanwhile. Of a queue: somebody stands in its line, no more."""
        if self._closed:
            return
        self._said[queue] = None
        if self._sending is not None:
            return
        loop = asyncio.get_running_loop()
        if self._link.live:  # it leaves within this turn of the loop: whoever sent it is about to wait
            self._sending = drive = Drive(self._send(), self._sent, loop)
            drive.begin()
        else:  # connecting takes a task
            self._sending = task = loop.create_task(self._send())
            task.add_done_callback(self._sent)

    def listen(self, callback: Callable[[Collection[str]], None]) -> None:
        self._callbacks.append(callback)
        if self._listening is None and not self._closed:
            self._listening = asyncio.get_running_loop().create_task(self._keep_listening())

    async def _send(self) -> None:
        while self._said and not self._closed:
            said, self._said = self._said, {}
            with suppress(Exception):  # a hint that is lost costs one poll
                await self._link.fetchrow("select pg_notify($1, $2)", self.channel, payload(self._me, said))
            await asyncio.sleep(EVERY_SECONDS)

    def _sent(self, *_how: object) -> None:
        self._sending = None

    async def _keep_listening(self) -> None:
        failures = 0
        while not self._closed:
            self._broke.clear()
            try:
                await self._link.raw(_nothing)
                if failures:
                    self._tell()
                failures = 0
                await self._broke.wait()
            except Exception:  # the next poll sees what a hint would have said
                failures = min(failures + 1, len(AGAIN_SECONDS))
                await asyncio.sleep(AGAIN_SECONDS[failures - 1])
            else:
                failures = 1

    async def _listen_on(self, conn: Connection) -> None:
        if self._callbacks and not self._link.pooled:  # there it would be another's session that listens
            await conn.add_listener(self.channel, self._heard)
            conn.add_termination_listener(self._ended)

    def _heard(self, _conn: object, _pid: int, _channel: str, payload: str) -> None:
        who, queues = read(payload)
        if who != self._me:
            self._tell(queues)

    def _ended(self, _conn: object) -> None:
        self._broke.set()

    def _tell(self, queues: Collection[str] = ()) -> None:
        for callback in self._callbacks:
            callback(queues)


async def _nothing(conn: Connection) -> None:
    """Being connected is all that is asked."""
