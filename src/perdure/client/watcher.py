"""Waits of this process for workflows that others run: their end, their events, that they become held, or are deleted.

One query for all waits together, at three moments: when a hint arrives, when something was committed here that may
matter, and by an adaptive poll (20 ms to 1 s). What runs in this very process is told directly and never polled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from perdure.client.waits import StreamWaits
from perdure.clock import Clock
from perdure.errors import DatabaseTrouble
from perdure.model.ids import MARK_BYTES, end_mark
from perdure.model.records import Ended, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.model.streams import StreamAsk, StreamPage
from perdure.store.asks import Fates
from perdure.store.base import Store

log = logging.getLogger("perdure")

POLL_SECONDS_MIN = 0.02
POLL_SECONDS_MAX = 1.0
NOTHING = Fates({}, [])
TOLD_MAX = 1000  # workflows of which it is known that they were told to be held: the latest
CHILDREN_MAX = 100  # asked for in each look; of more of them their wakes tell, and all are asked for only ...
CHILDREN_SECONDS = 10.0  # ... so often
HELD_EVERY = 10  # each so many polls also look whether something awaited has become held, or nobody can run it


class Gone:
    """Told in the place of an end or an event: no workflow has the id any more."""


GONE: Final = Gone()


class Watch:
    """One wait; ``cancel`` forgets it."""

    __slots__ = ("_callback", "_forget", "run", "told")

    def __init__(self, callback: Callable[..., None], forget: Callable[[Watch], None], run: int | None = None) -> None:
        self._callback = callback
        self._forget = forget
        self.run = run
        self.told = False  # or cancelled

    def cancel(self) -> None:
        self.told = True
        self._forget(self)

    def tell(self, value: object) -> None:
        self.told = True
        self._callback(value)


def _tell(watches: Iterable[Watch], value: object) -> None:
    """Tell those of them who still wait."""
    for watch in watches:
        if not watch.told:
            watch.cancel()
            watch.tell(value)


class Watcher:
    """See the head of this file."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock
        self._ends: dict[str, list[Watch]] = {}
        self._children: dict[bytes, str] = {}  # those of whose end a wake tells who waits for it, by its mark
        self._children_after = 0.0  # by the loop's clock: then they are asked for, however many they are
        self._events: dict[str, dict[str, list[Watch]]] = {}  # by id and name
        self._streams = StreamWaits()
        self._interval = POLL_SECONDS_MIN
        self._handle: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self._again = False
        self._closed = False
        self._looks = 0
        self._told_held: dict[str, None] = {}
        self._told_alone = False
        self.silent_since: float | None = None  # the first look that got no answer; None: the last one got one
        self.is_local: Callable[[str], bool] = lambda _id: False

    def end(self, id: str, callback: Callable[[Any], None], run: int | None = None, *, child: bool = False) -> Watch:
        """Call back once when the workflow is closed (``Ended``), or is there no more (``Gone``).

        ``run``: one that was told to cancel; also when a later one is open that was not told, with its row.
        ``child``: of a workflow that runs here, which is woken by its end.
        """

        def forget(watch: Watch) -> None:
            if watch in self._ends.get(id, ()):
                self._ends[id].remove(watch)
                if not self._ends[id]:
                    del self._ends[id]
                    self._children.pop(end_mark(id), None)

        watch = Watch(callback, forget, run)
        if child and id not in self._ends:
            self._children[end_mark(id)] = id
        elif not child:
            self._children.pop(end_mark(id), None)  # who else waits is told by nothing but a look
        self._ends.setdefault(id, []).append(watch)
        self._begin(id)
        if run is not None and self._look is None:
            self._look_later()
        return watch

    def event(self, id: str, name: str, callback: Callable[[bytes | Gone | None], None]) -> Watch:
        """Call back once when the event is set, with None when the workflow closes without it, or when it is gone."""

        def forget(watch: Watch) -> None:
            watches = self._events.get(id, {}).get(name, [])
            if watch in watches:
                watches.remove(watch)
                if not watches:
                    self._take_event(id, name)

        watch = Watch(callback, forget)
        self._events.setdefault(id, {}).setdefault(name, []).append(watch)
        self.look()  # it may be set already, also when the workflow runs here
        return watch

    def stream(self, ask: StreamAsk, callback: Callable[[StreamPage | None], None]) -> Watch:
        """Call back once when there is more for who has just read up to here; None: the workflow is unknown by now."""
        watch = Watch(callback, self._streams.forget)
        self._streams.add(ask, watch)
        self._interval = POLL_SECONDS_MIN
        if self._look is None:
            self._look_later()
        return watch

    def wrote(self, id: str) -> None:
        """Known here without asking: there is more in a stream of this workflow, or its end."""
        if self._streams.has(id):
            self.look()

    def tell_end(self, ended: Ended) -> None:
        """Known here without asking: a workflow of this process has closed (durably)."""
        watches = self._ends.pop(ended.row.id, ())
        if watches:
            self._children.pop(end_mark(ended.row.id), None)
        for watch in watches:
            watch.tell(ended)
        if ended.row.id in self._events:
            self.look()
        self.wrote(ended.row.id)

    def whose_end(self, wake: bytes) -> str | None:
        """Which of the children that are waited for a wake tells the end of; None: it may be about anything."""
        return self._children.get(wake[:MARK_BYTES])

    def tell_event(self, id: str, name: str, data: bytes) -> None:
        """Known here without asking: an event was set (durably)."""
        for watch in self._take_event(id, name):
            watch.tell(data)

    def _take_event(self, id: str, name: str) -> list[Watch]:
        """Who waits for it, and does no more."""
        names = self._events.get(id, {})
        watches = names.pop(name, [])
        if not names:
            self._events.pop(id, None)
        return watches

    def _begin(self, id: str) -> None:
        if not self.is_local(id):
            self._interval = POLL_SECONDS_MIN
            self.look()

    def look(self) -> None:
        """Look now (or again, right after the look that is under way)."""
        if self._closed:
            return
        if self._look is not None:
            self._again = True
            return
        if not self.waits:
            return
        self._look = asyncio.Task(self._look_once(), loop=self._loop)
        self._look.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._look = None
        if self._closed or task.cancelled():
            return
        if task.exception() is not None:
            log.error("looking for awaited workflows failed", exc_info=task.exception())
        if self._again:
            self._again = False
            self.look()
            return
        self._look_later()

    def _look_later(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if any(not self.is_local(id) for id in self._ends) or self._told() or self._events or self._streams:
            self._handle = self._loop.call_later(self._interval, self.look)
            self._interval = min(self._interval * 1.5, POLL_SECONDS_MAX)

    def _foreign(self, *, children: bool) -> list[str]:
        told = () if children else set(self._children.values())
        return [id for id in self._ends if id not in told and not self.is_local(id)]

    def _told(self) -> list[str]:
        """Those that were told to cancel: of what runs here, too, nobody says that its run was replaced."""
        return [id for id, watches in self._ends.items() if any(watch.run is not None for watch in watches)]

    def _tell_replaced(self, row: WorkflowRow) -> None:
        if not row.status.open or row.told_to_cancel is not None:
            return  # its end is told, or comes as it was told to
        _tell([one for one in self._ends.get(row.id, ()) if one.run is not None and one.run < row.run], row)

    async def _look_once(self) -> None:
        many, every = len(self._children) > CHILDREN_MAX, self._children_after <= self._loop.time()
        if every:
            self._children_after = self._loop.time() + CHILDREN_SECONDS
        ids, told = self._foreign(children=every or not many), self._told()
        wanted = [(id, name) for id, names in self._events.items() for name in names]
        asked = list(dict.fromkeys([*ids, *(id for id, _ in wanted)]))  # told in the order in which they began to wait
        # Those who are told. Who comes while the database answers, it may be for the next run, is of the next look.
        for_ends = {id: tuple(self._ends.get(id, ())) for id in asked}
        for_events = {(id, name): tuple(self._events[id][name]) for id, name in wanted}
        if self.silent_since is None:
            self.silent_since = self._loop.time()
        try:
            fates = await self._store.fates(asked) if asked else NOTHING
            # Events are read after the ends: one that was set before the end is then never missed.
            values = await self._store.events(wanted) if wanted else {}
            latest = await self._store.rows(told) if told else {}
            if self._streams:
                await self._streams.look(self._store)
            self._looks += 1
            if ids and (self._looks % HELD_EVERY == 0 or (many and every)):
                rows = await self._store.rows(ids)
                self._warn_held(rows)
                await self._warn_alone(rows)
        except DatabaseTrouble:
            return
        self.silent_since = None
        for key, data in values.items():
            _tell(for_events[key], data)
        ends: dict[str, Ended | Gone] = {**fates.ended, **dict.fromkeys(fates.gone, GONE)}
        for id, end in ends.items():
            _tell(for_ends[id], end)
        for row in latest.values():
            self._tell_replaced(row)
        for key in wanted:
            if key[0] in ends:
                _tell(for_events[key], GONE if ends[key[0]] is GONE else None)

    def _warn_held(self, rows: dict[str, WorkflowRow]) -> None:
        for row in rows.values():
            if row.status is Status.HELD and row.id not in self._told_held:
                self.warn_held(row.id, row.name, str(row.reason), row.detail)

    async def _warn_alone(self, rows: dict[str, WorkflowRow]) -> None:
        """Somebody waits for what nobody can run: say so, once."""
        idle = [row for row in rows.values() if row.status is Status.QUEUED]
        if self._told_alone or not idle:
            return
        now = self._clock.now()
        if not any(who.leased(now) for who in await self._store.incarnations()):
            self._told_alone = True
            log.warning(
                "workflow %s (%s) waits to be run, and no executor of app %s lives; start one: perdure run MODULE:APP",
                idle[0].id, idle[0].name, self._store.app,
            )  # fmt: skip

    def warn_held(self, id: str, name: str, reason: str, detail: str) -> None:
        """Somebody waits for a workflow that is held: say so, once, with the way to see why."""
        self._told_held[id] = None
        if len(self._told_held) > TOLD_MAX:
            del self._told_held[next(iter(self._told_held))]
        way = "it waits for a person or a fixed deploy; see: perdure workflow show"
        if reason == Reason.PAUSED:
            way = "it goes on when it is told to: perdure workflow unpause"
        log.warning("workflow %s (%s) is held: %s: %s\n  %s %s", id, name, reason, detail, way, id)

    def awaited(self, id: str) -> bool:
        """Whether anybody here waits for the end of this workflow."""
        return id in self._ends

    @property
    def waits(self) -> bool:
        """Whether anybody waits for an end, an event or a stream."""
        return bool(self._ends or self._events or self._streams)

    def close(self) -> None:
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
        if self._look is not None:
            self._look.cancel()
