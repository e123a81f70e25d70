"""Bounded: the line, for a call from outside that has a patience, and how such a call asks, writes and waits.

Workflows, and executors for them, wait for as long as it takes: they use the line itself.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar

from perdure.client.line import Line
from perdure.client.patience import Patience
from perdure.errors import DatabaseTrouble, LostAnswer
from perdure.model.writes import Unit, Verdict

T = TypeVar("T")

FIRST_SECONDS, MOST_SECONDS = 0.02, 1.0  # between two tries of a question
READS = frozenset({
    # of a store: asked, and not answered, they have changed nothing; whatever is not here may have
    "rows", "run", "inputs", "ended", "fates", "events", "streams", "histories", "records_after", "inbox", "decisions",
    "list", "count", "poll", "incarnations", "roll_call", "routing", "deployment", "sample", "versions", "unfinished",
    "queues", "queue_counts", "asked", "answered", "trials", "schedules", "firings", "health", "apps", "schemes",
    "get", "listing", "targets", "audits", "problems",
    # and what is made of these alone
    "gone", "hand", "measure", "problems_of",
})  # fmt: skip


class Bounded(Line):
    """The line, for one call that has a patience: everything else of it is shared."""

    __slots__ = ("patience",)

    def __init__(self, line: Line, seconds: float) -> None:
        self.__dict__ = line.__dict__
        self.patience = Patience(seconds)


def advise(line: Line, advice: str) -> None:
    """What to do if the call's effect is unknown in the end. The first one is that of the call itself."""
    if line.patience is not None and not line.patience.advice:
        line.patience.advice = advice


async def ask(line: Line, patience: Patience, question: Any, args: Any, *, lasting: bool) -> Any:
    """Ask until there is an answer. ``lasting``: it may take its time, and only trouble ends it."""
    end = None if lasting else line.loop.time() + patience.seconds
    writes, delay, last = not _reads(question), FIRST_SECONDS, None
    while end is None or line.loop.time() < end or last is None:
        bound = asyncio.timeout_at(None if lasting else end)
        try:
            async with bound:
                answer = await question(*args)
            patience.may_be |= writes
            return answer
        except DatabaseTrouble as trouble:
            last = trouble
            patience.may_be |= writes and (lasting or isinstance(trouble, LostAnswer))
            end = line.loop.time() + patience.seconds if end is None else end
        except TimeoutError as error:
            if not bound.expired():
                raise
            patience.may_be |= writes
            raise patience.ends(last) from error
        await line.wait_out(min(delay, max(end - line.loop.time(), 0.0)))
        delay = min(delay * 2, MOST_SECONDS)
    raise patience.ends(last) from last


def _reads(question: Any) -> bool:
    while isinstance(question, partial):
        question = question.func
    return getattr(question, "__name__", "") in READS


async def write(line: Line, unit: Unit) -> Verdict:
    """Write for a caller outside; what it gives up waiting for is not tried again."""
    patience = line.patience
    if patience is None:
        return await line.journal.write(unit)
    source = line.journal.offer(unit)
    bound = asyncio.timeout(patience.seconds)
    try:
        async with bound:
            verdict = await source.future
    except TimeoutError as error:
        if not bound.expired():
            raise
        patience.may_be |= line.journal.withdraw(source)
        raise patience.ends(line.journal.trouble) from error
    patience.may_be = True
    return verdict


async def heard(line: Line, future: asyncio.Future[T]) -> T:
    """Wait for something that takes its time, as long as the database answers what this process asks of it."""
    patience = line.patience
    if patience is None:
        return await future
    left = patience.seconds
    while not (await asyncio.wait([future], timeout=left))[0]:
        since = line.silent_since
        left = patience.seconds if since is None else since + patience.seconds - line.loop.time()
        if left <= 0:
            raise patience.ends(line.journal.trouble)
    return future.result()
