"""The verbs of a caller outside any workflow: each question answered over the line.

Every function returns only what is durable. Cancelling the caller cancels the wait, never what was asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from perdure.client import bounded, moves, once, processes, streams
from perdure.client.bounded import advise, heard, write
from perdure.client.journal import BYTES_MAX
from perdure.client.line import Line
from perdure.client.questions import (
    CancelOf,
    Command,
    EventOf,
    ForkOf,
    InfoOf,
    PauseOf,
    ProblemsOf,
    ProcessOf,
    Question,
    RestartOf,
    ResultOf,
    ResumeOf,
    SendTo,
    StartOrder,
    StreamOf,
    UnpauseOf,
    check_same,
    decode_outcome,
    outcome_of,
)
from perdure.client.watcher import Gone
from perdure.errors import DatabaseTrouble, ResultTimeout, WorkflowClosed, WorkflowConflict
from perdure.model.ids import RunKey
from perdure.model.info import WorkflowInfo, info_of, to_datetime
from perdure.model.records import Ended, WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Send, Start, Unit, size_of_start
from perdure.operations.end import replaced
from perdure.operations.look import gone, not_found
from perdure.operations.problems import problems_of
from perdure.serde.values import Shape

log = logging.getLogger("perdure")

START_BATCH = 500  # starts of one unit: more are split, so that a bulk start never blocks others for long
TIME_IS_UP = "time is up"

T = TypeVar("T")


async def answer(line: Line, question: Question) -> Any:
    """Answer any question."""
    match question:
        case StartOrder():
            return await start(line, question)
        case ResultOf():
            return await result(line, question)
        case InfoOf():
            return await info(line, question)
        case ProblemsOf():
            return await patiently(line, problems_of, line.store, question.id)
        case ProcessOf():
            return await processes.look(line, question, patiently)
        case CancelOf():
            return await cancel(line, question)
        case SendTo():
            return await send(line, question)
        case EventOf():
            return await event(line, question)
        case StreamOf():
            return await streams.read_page(line, question, patiently), None
        case ResumeOf() | RestartOf() | ForkOf() | PauseOf() | UnpauseOf() | Command():
            return await moves.answer(line, question, patiently)


async def patiently(line: Line, read: Any, *args: Any, until: int | None = None, lasting: bool = False) -> Any:
    """Read, waiting out trouble with the database; ``until`` a time, if one is given. Raises the trouble then.

    Without a time the line's patience holds; ``lasting``: for what may take longer than that while all is well.
    """
    if line.patience is not None and until is None:
        return await bounded.ask(line, line.patience, read, args, lasting=lasting)
    delay = bounded.FIRST_SECONDS
    while True:
        try:
            return await read(*args)
        except DatabaseTrouble as trouble:
            left = bounded.MOST_SECONDS if until is None else (until - line.clock.now()) / 1e6
            if left <= 0:
                raise
            log.info("the database is in trouble, a read waits: %s", trouble)
            await line.wait_out(min(delay, left))
            delay = min(delay * 2, bounded.MOST_SECONDS)


# -- start


class Begun(NamedTuple):
    """A start that is durable."""

    id: str
    ended: asyncio.Future[Ended | WorkflowRow | None] | None = None
    """The end of this very run, as far as this process will be told of it; None if it runs elsewhere."""


async def start(line: Line, order: StartOrder) -> Begun:
    """Start one workflow; who it is, once durable."""
    order = await routed(line, order)
    id = order.options.id or line.new_id()
    advise(line, _repeat_start(order, id))
    if order.options.dedup is not None:
        return Begun(await _start_once(line, order, id))
    while True:
        ended: asyncio.Future[Ended | WorkflowRow | None] | None = None
        if line.work is not None and line.work.can_run(order):
            local = line.work.start(order, id)
            local.started = started = line.loop.create_future()
            local.ended = ended = line.loop.create_future()
            if line.patience is not None:
                line.patience.may_be = True  # it runs here, and is written as soon as the database answers
            exists: WorkflowRow | None = await heard(line, started)
        else:
            unit = Unit(key=RunKey("", 0), children=[start_of(line, order, id)])
            exists = (await write(line, unit)).exists.get(id)
            _announce(line, [order])
        if exists is None:
            return Begun(id, ended)
        if not await _resolve(line, order, exists):
            return Begun(id)


async def call(line: Line, order: StartOrder, shape: Shape) -> Any:
    """Start a workflow and wait for its end. The way of most calls: run in this process, told by it."""
    order = await routed(line, order)
    if line.work is None or line.patience is not None or not line.work.can_run(order):
        return await result(line, ResultOf((await start(line, order)).id, shape))
    id = order.options.id or line.new_id()
    local = line.work.start(order, id)
    local.ended = told = line.loop.create_future()  # of this caller alone: a cancelled one leaves the workflow as it is
    ended: Ended | WorkflowRow | None = await told
    if isinstance(ended, WorkflowRow):  # the id was taken
        while await _resolve(line, order, ended):
            await start(line, order)
        ended = None
    if ended is None:
        return await result(line, ResultOf(id, shape))
    return decode_outcome(*outcome_of(ended), shape)


async def start_many(line: Line, orders: Sequence[StartOrder]) -> list[Begun]:
    """Start many in as few transactions as possible; who they are, in order, once all are durable."""
    await _know_routes(line)
    orders = [line.routes.routed(order) for order in orders]
    advise(
        line, "start those that you gave an id again, under the same ids; others may be there under ids of their own"
    )
    if line.work is not None and all(line.work.can_run(order) for order in orders):
        return list(await asyncio.gather(*(start(line, order) for order in orders)))
    if any(order.options.dedup is not None for order in orders):
        return [await start(line, order) for order in orders]
    ids = [order.options.id or line.new_id() for order in orders]
    # The same id twice in one call is one start; what comes later is compared with it, like any other repeat.
    firsts = dict(zip(reversed(ids), reversed(orders), strict=True))
    taken: dict[str, WorkflowRow] = {}
    for chunk in _chunks(start_of(line, firsts[id], id) for id in dict.fromkeys(ids)):
        verdict = await write(line, Unit(key=RunKey("", 0), children=chunk))
        taken |= verdict.exists
    _announce(line, orders)
    for order, id in zip(orders, ids, strict=True):
        if order is firsts[id]:
            again = id in taken and await _resolve(line, order, taken[id])
        else:
            again = order != firsts[id] or order.options.on_conflict != "attach"
        if again:
            await start(line, order)
    return [Begun(id) for id in ids]


def _chunks(starts: Iterable[Start]) -> Iterator[list[Start]]:
    """So many starts as go in one unit: bounded in number, and in bytes as a batch is."""
    chunk: list[Start] = []
    size = 0
    for one in starts:
        chunk.append(one)
        size += size_of_start(one)
        if len(chunk) == START_BATCH or size >= BYTES_MAX:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _repeat_start(order: StartOrder, id: str) -> str:
    if order.options.on_conflict == "attach":
        return f"repeat it with .options(id={id!r}) or --id {id}, which starts it once"
    return f"see whether workflow {id!r} is there before you repeat it (perdure workflow show {id})"


async def _start_once(line: Line, order: StartOrder, id: str) -> str:
    """Start it unless its deduplication key is another's; who has the key."""
    over: RunKey | None = None
    while True:
        row = await once.try_start(line, order, start_of(line, order, id), patiently, over)
        _announce(line)
        if row is None:
            return id
        if row.id == id and not once.waits_anew(order, row):
            if order.options.on_conflict != "replace":
                await attach(line, order, row)
                return id
            over = await make_way(line, row)
        elif not await once.resolve(line, order, row, cancel):
            return row.id


async def routed(line: Line, order: StartOrder) -> StartOrder:
    """The order with the version that routing gives it."""
    await _know_routes(line)
    return line.routes.routed(order)


async def _know_routes(line: Line) -> None:
    if line.routes.stale(told=line.work is not None):
        line.routes.saw(await patiently(line, line.store.routing))


def start_of(line: Line, order: StartOrder, id: str) -> Start:
    """A start for whoever claims it."""
    options = order.options
    delay = options.delay if options.debounce is None else options.debounce
    later = delay is not None or options.until is not None
    return Start(
        id=id,
        lineage=line.new_token(),
        name=order.name,
        version=options.version or "",
        input=order.input,
        fingerprint=order.fingerprint,
        nonce=line.new_token(),
        status=Status.SCHEDULED if later else Status.QUEUED,
        delay=delay,
        until=options.until,
        timeout=options.timeout,
        queue=options.queue,
        priority=options.priority,
        partition=options.partition,
        expires=options.expires,
        attributes=options.attributes,
        versioning=options.versioning,
    )


def _announce(line: Line, begun: Sequence[StartOrder] = ()) -> None:
    """Something may be claimable; if only starts were made, and all stand in lines without a partition: there."""
    queues = {_line_of(order) for order in begun} or {""}
    if line.work is not None:
        line.work.look(() if "" in queues else queues)
        return
    for queue in queues:
        line.store.hint(queue)


def _line_of(order: StartOrder) -> str:
    """In whose line a start stands at once, "" if in none or with a partition."""
    options = order.options
    waits = options.delay is not None or options.until is not None or options.debounce is not None
    return "" if waits or options.partition or options.queue is None else options.queue


async def _resolve(line: Line, order: StartOrder, row: WorkflowRow) -> bool:
    """The id is taken. True: try the start again (it was replaced); False: attached; else raises."""
    policy = order.options.on_conflict
    if policy == "replace":
        await make_way(line, row)
        return await _forget_run(line, row, order)
    await attach(line, order, row)
    return False


async def make_way(line: Line, row: WorkflowRow) -> RunKey:
    """Cancel what has the id; after which run the next is to begin."""
    if row.status.open:
        await cancel(line, CancelOf(row.id, "replaced by a new start"))
    return row.key


async def attach(line: Line, order: StartOrder, row: WorkflowRow) -> None:
    """Attach to the workflow that has the id. Raises ``WorkflowConflict`` if it is another, or none is wanted."""
    if order.options.on_conflict == "fail":
        raise WorkflowConflict(
            f"workflow id {row.id!r} exists already ({row.name}, {row.status}); "
            f"{line.spelling.of('on_conflict', 'fail')} asked for this error. Choose another id, or leave that out to "
            "attach to it"
        )
    first = await _first_run(line, row, order)
    stored = (await patiently(line, line.store.inputs, [first.key])).get(first.key)
    check_same(first, order, stored, line.spelling)
    if row.closed is not None:
        # A script shows warnings only, and whoever runs it twice must be told once why nothing ran.
        level, line.told_attached = logging.INFO if line.told_attached else logging.WARNING, True
        log.log(
            level,
            "workflow %s finished at %s (%s); this call is answered with that outcome. "
            "To run it again: another id, or %s",
            row.id, to_datetime(row.closed).isoformat(timespec="seconds"), row.status, line.spelling.anew,
        )  # fmt: skip


async def _first_run(line: Line, row: WorkflowRow, order: StartOrder) -> WorkflowRow:
    """The run that a start began, if the latest one differs from the order but continues it."""
    while row.run > 1 and (row.name, row.fingerprint) != (order.name, order.fingerprint):
        before = await patiently(line, line.store.run, RunKey(row.id, row.run - 1))
        if before is None or before.status is not Status.CONTINUED:
            break
        row = before
    return row


async def _forget_run(line: Line, row: WorkflowRow, order: StartOrder) -> bool:
    """Begin the next run of an id whose latest run has closed. False: done; True: somebody was quicker, look again."""
    begun = await patiently(
        line, line.store.replace, RunKey(row.id, row.run), start_of(line, order, row.id), line.new_token()
    )
    _announce(line)
    return not begun


# -- wait, read


def settle(future: asyncio.Future[T], value: T) -> None:
    """Settle a future unless nobody waits any more."""
    if not future.done():
        future.set_result(value)


def _give_up(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.cancel(TIME_IS_UP)


async def result(line: Line, question: ResultOf) -> Any:
    """Wait for the end; the result, or the exception."""
    told = question.ended
    known = told.result() if told is not None and told.done() and not told.cancelled() else None
    ended: Ended = known if isinstance(known, Ended) else await _end(line, question.id, question.timeout)
    outcome, data = outcome_of(ended)
    return decode_outcome(outcome, data, question.shape)


def too_late(id: str, timeout: int) -> ResultTimeout:
    """The error for an end that did not come within ``timeout`` microseconds."""
    return ResultTimeout(f"workflow {id} did not end within {timeout / 1e6:g} s; it goes on")


async def _end(line: Line, id: str, timeout: int | None, told: int | None = None) -> Any:
    """``Ended``; or the row of another run than the one that was ``told`` to cancel, which nobody has told."""
    future: asyncio.Future[Ended | Gone | WorkflowRow] = line.loop.create_future()
    until = None if timeout is None else line.clock.now() + timeout
    if line.work is None or not line.work.has(id):
        try:
            fates = await patiently(line, line.store.fates, [id], until=until)
        except DatabaseTrouble as trouble:
            if until is None:
                raise
            raise ResultTimeout(f"workflow {id}: the database could not be asked in time: {trouble}") from trouble
        if id in fates.ended:
            return fates.ended[id]
        if fates.gone:
            raise await patiently(line, gone, line.store, id)
    watch = line.watcher.end(id, lambda ended: settle(future, ended), told)
    timer = None if until is None else line.timers.at(until, lambda: _give_up(future))
    try:
        ended = await (future if timeout is not None else heard(line, future))
    except asyncio.CancelledError as cancelled:
        if timeout is not None and cancelled.args == (TIME_IS_UP,):
            raise too_late(id, timeout) from None
        raise
    finally:
        watch.cancel()
        if timer is not None:
            timer.cancel()
    if isinstance(ended, Gone):
        raise await patiently(line, gone, line.store, id)
    return ended


async def event(line: Line, question: EventOf) -> Any:
    """Wait for an event; None at the timeout or the end."""
    future: asyncio.Future[bytes | Gone | None] = line.loop.create_future()
    until = None if question.timeout is None else line.clock.now() + question.timeout
    if line.work is None or not line.work.has(question.id):
        try:
            if not await patiently(line, line.store.rows, [question.id], until=until):
                raise await patiently(line, gone, line.store, question.id)
        except DatabaseTrouble:
            if until is None:
                raise
            return None  # as whenever the time is up and nothing is known of it
    watch = line.watcher.event(question.id, question.name, lambda data: settle(future, data))
    timer = None if until is None else line.timers.at(until, lambda: settle(future, None))
    try:
        data = await (future if until is not None else heard(line, future))
    finally:
        watch.cancel()
        if timer is not None:
            timer.cancel()
    if isinstance(data, Gone):
        raise await patiently(line, gone, line.store, question.id)
    return None if data is None else question.shape.decode(data)


async def info(line: Line, question: InfoOf) -> WorkflowInfo:
    rows = await patiently(line, line.store.rows, [question.id])
    if question.id not in rows:
        raise not_found(question.id, line.app)
    return info_of(rows[question.id])


# -- command


async def cancel(line: Line, question: CancelOf) -> Status:
    """Cancel; the status the workflow ended with, once that is definite."""
    nonce = line.new_token()
    advise(line, "cancel it again, which changes nothing more")
    row = await patiently(line, line.store.cancel, question.id, question.reason, nonce)
    if row is None:
        raise not_found(question.id, line.app)
    if row.status.open:
        if line.work is not None and line.work.has(question.id):
            line.work.cancel(question.id, question.reason, nonce)
        else:
            _announce(line)
        return await _stopped(line, row)
    if row.status is Status.CANCELLED:
        line.watcher.look()
        line.store.hint()
    return row.status  # type: ignore[no-any-return]


async def _stopped(line: Line, told: WorkflowRow) -> Status:
    """The status that who was told to cancel ends with; ``superseded`` if a run goes on in its place that was not."""
    while True:
        found = await _end(line, told.id, None, told.run)
        row = found.row if isinstance(found, Ended) else found
        if await patiently(line, replaced, line.store, told, row):
            return Status.SUPERSEDED
        if isinstance(found, Ended):
            return row.status
        told = row  # it has gone on as new: what it was told, it has heard


async def send(line: Line, question: SendTo) -> None:
    """Send; returns when the message is durable."""
    message = Send(question.id, line.new_mid(), question.topic, question.data, line.new_token(), question.key)
    tried_again = line.journal.tried_again
    again = "sent again, it may be delivered twice; a key of your own (key=…) prevents that from the first time on"
    advise(line, again if question.key is None else "send it again with the same key, which delivers it once")
    verdict = await write(line, Unit(key=RunKey("", 0), sends=[message]))
    if verdict.undelivered:
        raise undelivered(question.id, verdict.undelivered[message.mid], line.app)
    if line.work is None:
        _announce(line)
    elif question.key is None and line.journal.tried_again == tried_again:
        line.work.post.deliver(message)
    else:  # another with this key may have been first; a first try may have been received before
        line.work.post.announce([question.id])


def undelivered(id: str, status: Status | None, app: str) -> Exception:
    """The error for a message that nobody will receive."""
    if status is None:
        return not_found(id, app)
    return WorkflowClosed(f"workflow {id!r} is {status} and takes no more messages; see: perdure workflow show {id}")
