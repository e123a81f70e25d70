"""Post: messages that this process has committed, on their way to runs of this process.

Most are handed over as they were sent, without asking the database for what it was just given. What it may have judged
otherwise is read from the inbox: a message with a key (another may have been there first), one sent by a run (a repeat
may have been received before), one whose commit was tried twice, one for whom another went with a transaction of the
user's. An inbox is read whole, so not before its run receives and has nothing left of it: thousands sent to one that is
busy would each read all before it.

A run that is being claimed meanwhile is not here yet, and its claim may have looked for mail before: it begins with a
read to come.

Promises: messages of one sender arrive in the order in which they were sent, so nothing is handed over past a read that
is still to come; each counts once, by its id; what was durable before a receive ran out of time is received by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from perdure.client.line import Line
from perdure.errors import DatabaseTrouble
from perdure.model.records import Message
from perdure.model.writes import Send
from perdure.runtime.execution import Execution

WITHIN_MAX = 10_000  # of whom it is known that mail may come with a transaction; of whom else, a look tells later


class Taking(asyncio.Lock):
    """Held from a claim until what was claimed is here; then it says so."""

    def __init__(self, done: Callable[[], None]) -> None:
        super().__init__()
        self._done = done

    def release(self) -> None:
        self._done()
        super().release()


class Host(Protocol):
    """What post needs of an executor."""

    line: Line
    executions: dict[str, Execution]
    deciding: dict[str, asyncio.Task[None]]
    taking: Taking

    def look(self) -> None: ...
    def keep(self, task: asyncio.Task[Any]) -> None: ...


class Post:
    """See the head of this file. Everything runs on the line's event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._requests = 0
        self._to_read: dict[str, int] = {}  # runs whose mail must be read, by the latest request to do so
        self._reading: set[str] = set()  # of these, those whose read is under way
        self._failed: dict[str, None] = {}  # … and those whose read has failed
        self._then: dict[str, list[Callable[[], None]]] = {}  # what comes after a read that is yet to begin
        self._within: dict[str, None] = {}  # a user's transaction may hold mail for these; the latest last
        self._missed: set[str] = set()  # not here, and written to while a claim is under way that may be theirs

    def deliver(self, send: Send) -> None:
        """A message from outside is durable, and nobody but this sender can have written it."""
        execution = self._host.executions.get(send.dest)
        if execution is None or execution.gone or send.dest in self._to_read or send.dest in self._within:
            self.announce([send.dest])
            return
        line = self._host.line
        message = Message(send.dest, send.mid, send.topic, send.data, line.clock.now(), send.sender)
        line.loop.call_soon(execution.mail, [message], send.wake)

    def comes_within(self, id: str) -> None:
        """A message for this one goes with a transaction of the user's: when that is committed, nobody here is told."""
        self._within.pop(id, None)
        self._within[id] = None
        if len(self._within) > WITHIN_MAX:
            del self._within[next(iter(self._within))]

    def announce(self, ids: Sequence[str]) -> None:
        """Messages for these are durable: read them."""
        host = self._host
        here = [id for id in ids if id in host.executions]
        if len(here) < len(ids):
            self._miss(id for id in ids if id not in host.executions)
            host.look()
        self._note(here)
        self.want(here)

    def _note(self, ids: Iterable[str]) -> None:
        self._requests += 1
        self._to_read.update(dict.fromkeys(ids, self._requests))

    def _miss(self, ids: Iterable[str]) -> None:
        host = self._host
        self._missed.update(id for id in ids if host.taking.locked() or id in host.deciding)

    def began(self, id: str) -> None:
        """A run that was claimed is here from now on."""
        if id in self._missed:
            self._missed.discard(id)
            self._note([id])

    def all_here(self) -> None:
        """What was claimed is here, but for what is still decided upon; the next claim is told of all before it."""
        self._missed.intersection_update(self._host.deciding)

    def owes(self, id: str) -> bool:
        """Whether there may be more in its inbox than was handed over."""
        return id in self._to_read

    def want(self, ids: Iterable[str]) -> None:
        """Read what is owed to those of these that receive, unless that is under way: its end looks again."""
        now = [id for id in ids if id in self._to_read and id not in self._reading and self._receives(id)]
        if now:
            self._reading.update(now)
            self._host.keep(asyncio.Task(self._read_patiently(now), loop=self._host.line.loop))

    def first(self, id: str, then: Callable[[], None]) -> bool:
        """Whether ``then`` is called after a read, since one is owed; it is begun now, or after the one under way."""
        if id not in self._to_read:
            return False
        self._then.setdefault(id, []).append(then)
        self.want([id])
        return True

    def _receives(self, id: str) -> bool:
        execution = self._host.executions.get(id)
        return execution is not None and bool(execution.receiving)

    async def _read_patiently(self, ids: Collection[str]) -> None:
        try:
            await self.read(ids)
        except DatabaseTrouble:
            self._failed.update(dict.fromkeys(ids))
            self._host.look()
        else:
            self._host.line.loop.call_soon(self.want, ids)  # behind what was handed over
        finally:
            self._reading.difference_update(ids)

    def again(self) -> None:
        """The database answers: read what could not be read, of which no wake may be left to tell."""
        if self._failed:
            failed, self._failed = self._failed, {}
            self.want(failed)

    async def woken(self, ids: Collection[str]) -> None:
        """There may be mail for these executions: read it, or keep in mind that it must be."""
        self._note(ids)
        if now := [id for id in ids if self._receives(id)]:
            await self.read(now)

    async def read(self, ids: Collection[str]) -> None:
        """Read the inboxes of these executions and hand over what is new."""
        host = self._host
        asked = {id: self._to_read[id] for id in ids if id in self._to_read}
        before = {id: len(self._then.get(id, ())) for id in asked}
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
            waiting = self._then.pop(id, [])
            read = len(waiting) if id not in self._to_read else before[id]
            for then in waiting[:read]:
                host.line.loop.call_soon(then)
            if waiting[read:]:
                self._then[id] = waiting[read:]

    def forget(self, id: str) -> None:
        """It runs here no more: whoever claims it reads its inbox, or has done so before this was to be read."""
        if self._to_read.pop(id, None) is not None:
            self._miss([id])
        self._then.pop(id, None)
