"""Post: messages that this process has committed, on their way to runs of this process.

Most are handed over as they were sent, without asking the database for what it was just given. What it may have judged
otherwise is read from the inbox: a message with a key (another may have been there first), one sent by a run (a repeat
may have been received before), one whose commit was tried twice. Promises: messages of one sender arrive in the order
in which they were sent, so nothing is handed over past a read that is still to come; each counts once, by its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from perdure.client.line import Line
from perdure.errors import DatabaseTrouble
from perdure.model.records import Message
from perdure.model.writes import Send
from perdure.runtime.execution import Execution


class Host(Protocol):
    """What post needs of an executor."""

    line: Line
    executions: dict[str, Execution]

    def look(self) -> None: ...
    def keep(self, task: asyncio.Task[Any]) -> None: ...


class Post:
    """See the head of this file. Everything runs on the line's event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._requests = 0
        self._to_read: dict[str, int] = {}  # runs whose mail must be read, by the latest request to do so

    def deliver(self, send: Send) -> None:
        """A message from outside is durable, and nobody but this sender can have written it."""
        execution = self._host.executions.get(send.dest)
        if execution is None or execution.gone or send.dest in self._to_read:
            self.announce([send.dest])
            return
        line = self._host.line
        message = Message(send.dest, send.mid, send.topic, send.data, line.clock.now(), send.sender)
        line.loop.call_soon(execution.mail, [message], send.wake)

    def announce(self, ids: Sequence[str]) -> None:
        """Messages for these are durable: read them."""
        host = self._host
        here = [id for id in ids if id in host.executions]
        if len(here) < len(ids):
            host.look()
        if here:
            self._requests += 1
            self._to_read.update(dict.fromkeys(here, self._requests))
            host.keep(asyncio.Task(self._read_patiently(here), loop=host.line.loop))

    async def _read_patiently(self, ids: Collection[str]) -> None:
        try:
            await self.read(ids)
        except DatabaseTrouble:
            self._host.look()

    async def read(self, ids: Collection[str]) -> None:
        """Read the inboxes of these executions and hand over what is new."""
        host = self._host
        asked = {id: self._to_read[id] for id in ids if id in self._to_read}
        by_dest: dict[str, list[Message]] = {}
        for message in await host.line.store.inbox(ids):
            by_dest.setdefault(message.dest, []).append(message)
        for id, messages in by_dest.items():
            execution = host.executions.get(id)
            if execution is not None and not execution.gone:
                host.line.loop.call_soon(execution.mail, messages)
        for id, request in asked.items():
            if self._to_read.get(id) == request:  # else more was committed since, and its read is to come
                del self._to_read[id]

    def forget(self, id: str) -> None:
        """It runs here no more: whoever claims it reads its inbox."""
        self._to_read.pop(id, None)
