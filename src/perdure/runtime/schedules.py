"""Firing schedules: part of each look of every executor. There is no leader.

The one poll says when the next schedule has something to do. Whoever sees it come does it in one compare-and-set of the
schedule's row, in the commit that starts the workflow; who comes second finds another revision, and looks again. Idle,
no query is asked. An executor that drains looks no more, so it fires nothing; one that takes over nobody's work
(``recovery="manual"``) fires like any other, for a firing is new work.
"""

from __future__ import annotations

import logging
from typing import Protocol

from perdure.client.line import Line
from perdure.client.schedules import hand
from perdure.client.timers import Timer
from perdure.definitions import Registry
from perdure.errors import DefinitionError
from perdure.model.schedules import Schedule
from perdure.model.versions import Routing
from perdure.operations.schedules import declare, fire
from perdure.runtime.launch import Code
from perdure.store.asks import Poll

log = logging.getLogger("perdure")


class Host(Protocol):
    """What firing needs of an executor."""

    line: Line

    def look(self) -> None: ...


class Scheduler:
    """Of one executor."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._timer: Timer | None = None
        self._told: set[tuple[str, int]] = set()

    async def after(self, poll: Poll) -> None:
        """Do what a poll says is due, or look again when it will be."""
        if poll.schedule is None:
            return
        if poll.schedule > poll.now:
            self._look_at(poll.schedule)
            return
        line = self._host.line
        rows = await line.store.schedules(due=poll.now)
        made = await hand(line)
        fired = broken = False
        for row in rows:
            try:
                if row.due(poll.now):
                    fired |= await fire(line.store, row, poll.now, made, line.clock.stamp())
            except DefinitionError as error:
                self._cannot(row, error)
                broken = True
        if broken:  # it hides when the next of the others comes
            coming = [row.next for row in await line.store.schedules() if row.active and row.next is not None]
            self._look_at(min((at for at in coming if at > poll.now), default=None))
        if fired:
            line.store.hint()
            self._host.look()  # for what was started, and for the times that one commit did not hold

    def _look_at(self, when: int | None) -> None:
        if self._timer is not None:
            if self._timer.callback is not None and self._timer.when == when:
                return
            self._timer.cancel()
        if when is not None:
            self._timer = self._host.line.timers.at(when, self._host.look)

    def _cannot(self, row: Schedule, error: DefinitionError) -> None:
        """Say once that this executor cannot compute its times; another may."""
        if (row.name, row.revision) not in self._told:
            self._told.add((row.name, row.revision))
            log.error("schedule %s cannot be fired by this executor: %s", row.name, error)


class Declaring(Protocol):
    """What declaring needs of an executor."""

    line: Line
    registry: Registry
    code: Code


class Declared:
    """Whether this executor has declared its schedules and queues, since its version became the current one."""

    def __init__(self) -> None:
        self._done = False

    async def see(self, host: Declaring, routing: Routing) -> None:
        """Declare once, if the version that runs here is the current one: an older one has nothing to say."""
        if routing.current != host.code.version:
            self._done = False
        elif not self._done:
            line = host.line
            specs = {name: one.spec for name, one in host.registry.schedules.items()}
            now = (await line.store.poll(None, None, now=line.clock.stamp())).now
            await declare(line.store, specs, host.code.version, now, line.clock.stamp())
            if limits := host.registry.limits:
                await line.store.declare_queues(limits, now=line.clock.stamp())
            self._done = True
