"""Queues, as one executor works them: what it lets in, and what it must not.

Promises: the limits of a queue are kept by the store, under the queue's lock; what only this process can know, how much
of a queue it holds, is told with each claim, also with those of work that was let through before (woken, handed back,
adopted). No more is let in than there is room for, and than this process can soon begin. A queue that is full is tried
again when something of it ends here, at a hint, and at each poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.model.queues import Limits, QueueRow
from perdure.model.records import Claimed, Incarnation
from perdure.runtime.execution import Execution
from perdure.runtime.upgrades import Following
from perdure.store.asks import Poll
from perdure.store.lines import Line as InLine
from perdure.store.lines import LineRequest, versions_of

log = logging.getLogger("perdure")

AHEAD = 1000  # runs of queues that are at work at once: more would only wait here, instead of in line for anybody
LINE_BATCH = 400  # let in by one claim
IN_A_ROW = 4  # claims from one line, before the others have their turn and the database is looked at again
LINED_UP = 500  # of each version, in one look
UNLIMITED = Limits()
EXPIRED = 200  # closed in one look


class Host(Protocol):
    """What queues need of an executor."""

    line: Line
    registry: Registry
    me: Incarnation
    version: str
    following: Following
    executions: dict[str, Execution]
    deciding: dict[str, asyncio.Task[None]]

    @property
    def space(self) -> int:
        """How many more runs there is memory for."""
        ...

    def may_begin(self) -> bool: ...
    def look(self) -> None: ...
    def look_at(self, when: int) -> None: ...
    async def take_on(self, claimed: Sequence[Claimed]) -> None: ...


class Queues:
    """See the head of this file."""

    def __init__(self, host: Host, listen: Collection[str] | None) -> None:
        self._host = host
        self._listen = None if listen is None else frozenset(listen)
        self._known: Mapping[str, QueueRow] = {}
        self._revision: int | None = None
        self._mine: dict[str, str] = {}  # queue of each workflow that was let in here, and may be here still
        self._coming: set[str] = set()  # claimed, and their histories are being read
        self.handed_back: set[str] = set()  # cannot be run here; ours until that is written
        self.unsure = False  # an answer may be lost, and with it what is here: nothing more until a look has found that
        self.series = 0  # of claims that obey our own limits; after a lost answer another one begins
        self._named = 0  # looks at named lines alone, since the latest whole one
        self._partitioned: set[str] = set()  # in whose line somebody had a partition, at the latest look
        self._full: set[str] = set()  # in whose line somebody was left standing
        self._turn = 0

    async def declare(self) -> None:
        """Say what the code declares of queues that are new; of others its version does, if it is the current one."""
        code = self._host.registry.limits
        unknown = sorted((self._listen or frozenset()) - code.keys())
        if unknown:
            log.info("listens to queues that this code does not declare: %s", ", ".join(unknown))
        line = self._host.line
        if code:
            await line.store.declare_queues(code, over=False, now=line.clock.stamp())
        self._revision = None  # read again: that of a database made anew may be the same

    # -- what is here

    @contextmanager
    def coming(self, claimed: Sequence[Claimed]) -> Generator[None]:
        """These are here from now on, also while they are not begun: whoever asks meanwhile must count them."""
        queued = {one.row.id: one.row.queue for one in claimed if one.row.queue is not None}
        self._mine |= queued
        self._coming |= queued.keys()
        try:
            yield
        finally:
            self._coming -= queued.keys()

    def let_go(self, execution: Execution) -> None:
        """This one is here no longer."""
        if execution.row.queue in self._full:
            self._host.look()

    def _held(self) -> Counter[str]:
        """How much of each queue is here."""
        host = self._host
        here = self.handed_back | self._coming
        gone = [id for id in self._mine if id not in host.executions and id not in host.deciding and id not in here]
        for id in gone:
            del self._mine[id]
        return Counter(self._mine.values())

    def let(self) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
        """Of which queues nothing more may come here, and of which so many: of what went through their lines."""
        limits = {
            name: row.limits.worker_concurrency
            for name, row in self._known.items()
            if row.limits.worker_concurrency is not None
        }
        if not limits:
            return (), ()
        if self.unsure:
            return tuple(limits), ()
        held = self._held()
        free = {name: limit - held[name] for name, limit in limits.items()}
        return (
            tuple(name for name, n in free.items() if n <= 0),
            tuple((name, n) for name, n in free.items() if n > 0),
        )

    # -- a look

    async def be_sure(self) -> None:
        """Before a look for what a lost answer hid: a claim of before it has been made by now, or never will be."""
        if self.unsure:
            self.series += 1
            await self._host.line.store.new_series(self._host.me.id, self.series)

    async def know_first(self) -> None:
        """Read the limits if no look has yet: what is adopted at a launch obeys them, too."""
        if self._revision is None and not self._known:
            self._known = {row.name: row for row in await self._host.line.store.queues()}

    async def know(self, poll: Poll) -> None:
        """Read the limits again if any was changed; make queues known that only their items tell of."""
        store = self._host.line.store
        if poll.revision != self._revision:
            self._known = {row.name: row for row in await store.queues()}
            self._revision = poll.revision
        unknown = [line.queue for line in poll.lines if line.queue not in self._known]
        if unknown:
            await store.make_queues(unknown, now=self._host.line.clock.stamp())
            self._known = {row.name: row for row in await store.queues()}
            self._revision = None  # read again: others may have made some at the same time

    async def take(self, poll: Poll) -> bool:
        """Let in what the lines of queues hold, as far as there is room; whether to look again at once."""
        self._named = 0
        await self._cancel(poll.told)
        lines = {line.queue: line for line in poll.lines}
        self._partitioned = {line.queue for line in poll.lines if line.partitioned}
        again = await self._line_up(poll, lines)
        names = [name for name in sorted(lines) if self._listen is None or name in self._listen]
        self._full.intersection_update(names)
        if not names or not self._host.may_begin():
            return again
        self._turn += 1
        first = self._turn % len(names)
        for name in [*names[first:], *names[:first]]:
            again = await self._let_in(lines[name]) or again
        return again

    async def take_named(self, names: Collection[str]) -> bool:
        """Let in who stands in these lines, without a look before it. False: it takes a look, or is worth one."""
        names = [name for name in names if self._listen is None or name in self._listen]
        known = all(name in self._known and name not in self._partitioned for name in names)
        if self.unsure or not known or not self._host.may_begin() or self._named == IN_A_ROW:
            return False
        self._named += 1
        more = [await self._let_in(InLine(name, partitioned=False)) for name in names]
        return not any(more)

    async def _cancel(self, told: Sequence[tuple[str, str]]) -> None:
        """End what stands in line and is told to cancel: it was not begun, so nothing of it must run."""
        line = self._host.line
        for id, reason in told:
            await line.store.cancel(id, reason, line.new_token(), now=line.clock.stamp())
        if told:
            line.watcher.look()
            line.store.hint()

    async def _line_up(self, poll: Poll, lines: dict[str, InLine]) -> bool:
        """Close what has been in line for too long, line up what was delayed until now."""
        line = self._host.line
        if poll.due is None:
            return False
        if poll.due > poll.now:
            self._host.look_at(poll.due)
            return False
        versions = versions_of(self._host.version, fresh=self._host.following.fresh)
        expired = await line.store.expire(EXPIRED, line.new_token(), now=line.clock.stamp())
        if expired:
            log.info("%d workflow(s) stood in line for longer than they may, and were closed", len(expired))
            line.watcher.look()
            line.store.hint()
        for name in await line.store.line_up(versions, LINED_UP, now=line.clock.stamp()):
            lines[name] = InLine(name, partitioned=True)  # perhaps: it costs a look at the first lanes
            if name not in self._known:
                await line.store.make_queues([name], now=line.clock.stamp())
        return True

    async def _let_in(self, standing: InLine) -> bool:
        row = self._known.get(standing.queue)
        if row is not None and row.paused:
            return False
        for _ in range(IN_A_ROW):
            if not await self._let_some_in(standing, row):
                return False
        return True

    async def _let_some_in(self, standing: InLine, row: QueueRow | None) -> bool:
        """Whether there may be more, and room for it."""
        host, name = self._host, standing.queue
        limit = min(LINE_BATCH, host.space, self._room_to_work())
        if limit <= 0:
            self._full.add(name)
            return False
        request = LineRequest(
            queue=name, owner=host.me.id, token=host.line.new_token(), version=host.version, limit=limit,
            mine=self._held()[name], partitioned=standing.partitioned, limited=row is None or row.limits != UNLIMITED,
            fresh=host.following.fresh, series=self.series if self._is_ours(name) else None,
        )  # fmt: skip
        claim = await host.line.store.claim_line(request, now=host.line.clock.stamp())
        if claim.claimed:
            await host.take_on(claim.claimed)
        if claim.again is not None:
            host.look_at(claim.again)
        if claim.more or row is None or row.limits != UNLIMITED:
            self._full.add(name)  # perhaps
        return claim.more

    def _is_ours(self, name: str) -> bool:
        """Whether the queue limits each executor."""
        row = self._known.get(name)
        return row is not None and row.limits.worker_concurrency is not None

    def _room_to_work(self) -> int:
        """How many more there may be at work at once."""
        if len(self._mine) < AHEAD:
            return AHEAD - len(self._mine)
        executions = self._host.executions
        busy = sum(1 for id in self._mine if id in executions and _at_work(executions[id]))
        return AHEAD - busy


def _at_work(execution: Execution) -> bool:
    return bool(execution.running) or not execution.waiting
