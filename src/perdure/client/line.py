"""The line: one app's open connection, shared by everything of this process that calls or works.

It owns the store, the journal, the timers and the watcher, on one event loop. An executor puts itself on the line
(``work``), so that a start from within its process runs here at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from perdure.client.journal import Journal
from perdure.client.patience import Patience
from perdure.client.places import Places
from perdure.client.questions import IN_PYTHON, StartOrder
from perdure.client.routes import Routes
from perdure.client.timers import Timers
from perdure.client.watcher import Watcher
from perdure.clock import Clock, SystemClock
from perdure.model.ids import MessageIds, TokenMaker, WorkflowIds
from perdure.model.writes import Send
from perdure.operations.resume import Check
from perdure.store.base import Store


class Listener(Protocol):
    """Who waits in this process, and is told once: a future, or what is called back at once."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...
    def exception(self) -> object: ...


class Local(Protocol):
    """A workflow that runs in this process."""

    started: Listener | None
    """None when its start is durable, or the row that has the id already."""

    ended: Listener | None
    """Its end, once durable; the row that has the id already; None when it goes on elsewhere. Made by who waits."""


class Post(Protocol):
    """Who hands messages that this process has sent to those of its runs that they are for."""

    def deliver(self, send: Send) -> None:
        """This message was committed by this process, once, and by nobody else; whom it is for may run here."""
        ...

    def announce(self, ids: Sequence[str]) -> None:
        """Messages for these, which may run here, were committed by this process."""
        ...

    def comes_within(self, id: str) -> None:
        """A message for this one goes with a transaction of the user's, which is committed when he likes."""
        ...


class Work(Protocol):
    """What an executor offers to callers of its own process."""

    def can_run(self, order: StartOrder) -> bool:
        """Whether a start may run here directly, without a queue."""
        ...

    def start(self, order: StartOrder, id: str) -> Local:
        """Run it here, from the first moment."""
        ...

    def has(self, id: str) -> bool:
        """Whether the workflow is running in this process."""
        ...

    @property
    def post(self) -> Post:
        """Of messages from this process."""
        ...

    def cancel(self, id: str, reason: str, nonce: bytes) -> None:
        """A cancel command for this workflow, with this nonce, was committed by this process."""
        ...

    def look(self, queues: Collection[str] = ()) -> None:
        """Something may have become claimable: in the lines of these queues, or (of none) anything."""
        ...

    def hinted(self, queues: Collection[str] = ()) -> None:
        """Another process has done something: of these queues, somebody stands in line; of none, it may be anything."""
        ...


class Line:
    """See the head of this file."""

    patience: Patience | None = None  # None: whoever uses it waits for as long as it takes

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, clock: Clock | None = None) -> None:
        self.store = store
        self.loop = loop
        self.clock: Clock = clock or SystemClock()
        self.journal = Journal(store, self.clock, loop)
        self.timers = Timers(self.clock, loop)
        self.watcher = Watcher(store, loop, self.clock)
        self.places = Places(store)
        self.new_token = TokenMaker()
        self.new_id = WorkflowIds()
        self.new_mid = MessageIds()
        self.work: Work | None = None
        self.routes = Routes(store.app, self.new_id)
        self.check_replay: Check | None = None  # who has the code can tell whether a history replays on it
        self.waiting_out = 0  # calls that the database refused, and that will be made again
        self.spelling = IN_PYTHON
        self.told_attached = False  # that a call was answered with the outcome of an earlier one
        self._on_hint: list[asyncio.Handle] = []
        store.on_hint(self._hinted)

    @property
    def app(self) -> str:
        return self.store.app

    def _hinted(self, queues: Collection[str] = ()) -> None:
        if not queues:  # who stands in line has not ended
            self.watcher.look()
        if self.work is not None:
            self.work.hinted(queues)

    @property
    def silent_since(self) -> float | None:
        """Since when the database has not answered what the journal or the watcher asks; None: it does."""
        since = [at for at in (self.journal.silent_since, self.watcher.silent_since) if at is not None]
        return min(since, default=None)

    async def wait_out(self, seconds: float) -> None:
        """Before a call that the database refused is made again."""
        self.waiting_out += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting_out -= 1

    async def close(self) -> None:
        """Let what waits be written, then let go of the store."""
        await self.journal.drained()
        self.drop()
        await self.store.close()

    def drop(self) -> None:
        """Stop at once, as a crash would."""
        self.journal.abort()
        self.watcher.close()
        self.timers.close()
