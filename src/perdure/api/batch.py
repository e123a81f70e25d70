"""Batches: one verb to all workflows that a query names, planned, frozen, carried out so that it may be run twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec

from perdure.client import batches
from perdure.client.patience import part
from perdure.errors import ConfigError
from perdure.model.batches import BatchInfo, BatchPlan, Fate, TargetInfo, target_info
from perdure.model.verbs import Verb
from perdure.operations.ask import PATIENCE_SECONDS
from perdure.operations.batch_plans import SAMPLES
from perdure.operations.batches import BatchOrder, Work, check_key, check_rate, check_reason
from perdure.operations.look import Order, who
from perdure.runtime import aface
from perdure.runtime.face import Home

Progress = Callable[[BatchInfo], object]


class Batch:
    """A verb, a query, a reason. Making one does no I/O. Not to be used in a workflow's body: in a step it may be.

    >>> # from perdure.batches import Resume
    >>> # batch = app.client.batch(Resume(version="v1"), "version = v2 AND problem IS NOT NULL", reason="v2 is bad")
    >>> # print(await batch.plan())
    >>> # done = await batch.apply(rate=200)
    """

    def __init__(self, home: Home, verb: Verb, query: str, reason: str, key: str | None) -> None:
        if not isinstance(verb, Verb):  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
            raise ConfigError(f"{verb!r} is no verb: give one of perdure.batches, such as Cancel()")
        self._home = home
        self._order = BatchOrder(
            verb=verb, query=query, order=Order(by=who(), reason=check_reason(reason)),
            key=None if key is None else check_key(key),
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Under which it is ordered once: the one that was given, or a hash of verb, options, query and reason."""
        return self._order.base

    async def plan(self, *, samples: int = SAMPLES, seed: int = 0, patience: float = PATIENCE_SECONDS) -> BatchPlan:
        """What it would do: counts by type, version, status and problem; nothing is changed.

        Where the verb names a version, ``samples`` of each type and version are replayed on it without any effect, by
        a live executor of it: ``safe``, ``diverges`` (with the step and both sides), ``unknown``. ``seed`` draws them;
        ``patience``: seconds to wait for executors. Raises ``QueryError``, showing where, ``ConfigError``.
        """
        order = partial(batches.plan, order=self._order, samples=samples, seed=seed, patience=patience)
        plan: BatchPlan = await _do(self._home, "plan", order)
        return plan

    async def apply(
        self, *, rate: float | None = None, again: bool = False, progress: Progress | None = None
    ) -> BatchInfo:
        """Freeze what the query names now, and carry it out to the end, here; what came of it.

        Ordered before by the same words, it is answered with that batch, and goes on with it if it is unfinished: so
        whoever does not know whether it was done does it again. ``again``: another batch all the same, under another
        key. ``rate``: so many changed workflows a second, at most. ``progress``: called after each chunk.
        Cancelled, it stops between two chunks, and may be gone on with: ``client.batch_handle(key).resume()``.

        Raises ``QueryError``, ``ConfigError``, ``BatchConflict`` for a key with another order.

        >>> # info = await client.batch(Cancel(), "status = open AND version = v2", reason="v2 is bad").apply()
        >>> # info.done, info.skipped, info.failed
        """
        order = msgspec.structs.replace(self._order, rate=check_rate(rate), again=again)
        work, _ = await _do(self._home, "apply", partial(batches.begin, order=order))
        return await _carry_out(self._home, work, progress)

    def __repr__(self) -> str:
        return f"<Batch {self.key!r}>"


class BatchHandle:
    """A batch that was ordered, by its key. Making one does no I/O."""

    def __init__(self, home: Home, key: str) -> None:
        self.key = key
        self._home = home

    async def info(self) -> BatchInfo:
        """How it stands. Raises ``BatchNotFound``."""
        info: BatchInfo = await _do(self._home, "info", partial(batches.info, key=self.key))
        return info

    async def watch(self) -> AsyncIterator[BatchInfo]:
        """How it stands now, and after each change, until nothing more will come of it. Raises ``BatchNotFound``."""
        seen: BatchInfo | None = None
        while seen is None or not seen.finished:
            found: BatchInfo = await _do(self._home, "watch", partial(batches.news, key=self.key, seen=seen))
            if found != seen:
                yield found
            seen = found

    async def targets(self, state: Fate | str | None = None) -> AsyncIterator[TargetInfo]:
        """Its targets in the order of their ids: all, or those ``waiting``, ``done``, ``skipped`` or ``failed``.

        >>> # async for target in client.batch_handle("cancel-585bc4b1066e").targets("failed"): print(target.detail)
        """
        fate = None if state is None else _fate(state)
        after: str | None = ""
        while after is not None:
            page = await _do(self._home, "targets", partial(batches.targets, key=self.key, fate=fate, after=after))
            for target in page:
                yield target_info(target)
            after = page[-1].id if page else None

    async def resume(self, *, reason: str = "", progress: Progress | None = None) -> BatchInfo:
        """Carry out what is left of it, here; a process that is still at it leaves it to this one.

        Raises ``BatchNotFound``, ``BatchConflict`` for one that was cancelled.
        """
        order = Order(by=who(), reason=reason)
        work = await _do(self._home, "resume", partial(batches.take, key=self.key, order=order))
        return await _carry_out(self._home, work, progress)

    async def retry(self, *, reason: str = "", progress: Progress | None = None) -> BatchInfo:
        """Put its failed targets back, and carry them out, here; without any it changes nothing.

        Raises ``BatchNotFound``, ``BatchConflict`` for one that was cancelled.
        """
        order = Order(by=who(), reason=reason)
        work = await _do(self._home, "retry", partial(batches.retry, key=self.key, order=order))
        return await _carry_out(self._home, work, progress)

    async def cancel(self, *, reason: str = "") -> BatchInfo:
        """Act on no more targets; final. What is done stays done. Raises ``BatchNotFound``."""
        order = Order(by=who(), reason=reason)
        info: BatchInfo = await _do(self._home, "cancel", partial(batches.cancel, key=self.key, order=order))
        return info

    def __repr__(self) -> str:
        return f"<BatchHandle {self.key!r}>"


async def _carry_out(home: Home, work: Work, progress: Progress | None) -> BatchInfo:
    while True:
        with part(f"apply it again, or resume it: batch {work.row.key} goes on with what is left", begun=True):
            info: BatchInfo = await _do(home, "apply", partial(batches.step, work=work))
        if progress is not None:
            progress(info)
        if info.finished:
            return info


async def _do(home: Home, name: str, work: Any) -> Any:
    return await aface.operate(home, f"batch.{name}()", work)


def _fate(state: Fate | str) -> Fate:
    try:
        return Fate(state)
    except ValueError:
        raise ConfigError(f"{state!r} is no state of a target: {', '.join(Fate)}") from None
