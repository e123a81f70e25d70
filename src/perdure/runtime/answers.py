"""Questions asked inside a workflow: how each gets its answer, and what is recorded of it.

What needs the database's verdict (a start with a chosen id, a message to a stranger) is written under the run's fence
and recorded once the verdict is known; the same write repeated after a crash finds its own first try (same message
id, same key, same derived nonce) and is not done twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from perdure.client import once, processes, verbs
from perdure.client.questions import (
    CancelOf,
    Command,
    EventOf,
    ForkOf,
    InfoOf,
    OpenOf,
    PauseOf,
    ProblemsOf,
    ProcessOf,
    RestartOf,
    ResultOf,
    ResumeOf,
    SendTo,
    StartOrder,
    StreamOf,
    UnpauseOf,
    check_same,
)
from perdure.client.timers import Timer
from perdure.client.watcher import Gone, Watch
from perdure.core.run import Op
from perdure.errors import Misuse, WorkflowConflict
from perdure.model.ids import RunKey, child_id
from perdure.model.info import WorkflowInfo, info_of
from perdure.model.processes import Seen
from perdure.model.records import Ended, Kind, Outcome, Record, WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Send, Verdict
from perdure.operations.look import gone, not_found
from perdure.runtime.durable import all_durable, may_act
from perdure.runtime.ends import child_start, routed_child
from perdure.runtime.execution import Execution
from perdure.runtime.reading import page_of, watch_stream
from perdure.runtime.streaming import Streaming
from perdure.runtime.unread import unread, value_of
from perdure.serde.failures import decode_failure, encode_failure

_encode = msgspec.json.encode
_info = msgspec.json.Decoder(WorkflowInfo)
_seen = msgspec.json.Decoder(Seen)


def shape_of_call(question: Any) -> tuple[Kind, str, bytes]:
    """Kind, name and fingerprint under which a question is recorded and compared on replay."""
    match question:
        case StartOrder():
            return Kind.CHILD, question.name, question.fingerprint
        case ResultOf():
            return Kind.RESULT, question.id, b""
        case InfoOf():
            return Kind.READ, f"info {question.id}", b""
        case EventOf():
            return Kind.READ, f"event {question.name} of {question.id}", b""
        case ProcessOf():
            return Kind.READ, f"process {question.id}", b""
        case OpenOf():
            return Kind.READ, "which children are open", b""
        case StreamOf(ask=ask):
            return Kind.READ, f"stream {ask.name} of {ask.id} from {ask.place}", b""
        case CancelOf():
            return Kind.CANCEL_OTHER, question.id, b""
        case SendTo():
            digest = hashlib.blake2b(question.data, digest_size=8).digest()
            return Kind.SEND, f"{question.id} {question.topic}".rstrip(), digest
        case ProblemsOf():
            raise Misuse(
                f"a workflow asked for the problems of {question.id!r}, which are not recorded: a replay would see "
                "others. Call it in a step, or outside"
            )
        case ResumeOf() | RestartOf() | ForkOf() | PauseOf() | UnpauseOf() | Command():
            raise Misuse(
                f"a workflow asked for {type(question).__name__.removesuffix('Of').lower()} of {question.id!r}: what "
                "an operator orders is not recorded, and a replay would order it again. Call it in a step, or outside"
            )
        case _:
            raise TypeError(f"no such question: {question!r}")


def dated(question: Any, now: int) -> Any:
    """A body's wait, with its deadline: of the call, so that a replay has the same, and no crash puts it off."""
    if isinstance(question, ResultOf | EventOf) and question.timeout is not None:
        return msgspec.structs.replace(question, until=now + question.timeout)
    return question


FOUND = 0  # attempt of a CHILD record whose workflow was another's: found, not started


def decode(execution: Execution, question: Any, record: Record) -> Any:
    """What the body receives: always the recorded copy."""
    match question:
        case ResultOf() | EventOf():
            return value_of(execution, record, question.shape)
        case _ if record.outcome is Outcome.ERROR:
            raise decode_failure(record.data or b"")
        case StreamOf():
            return page_of(record), record
        case InfoOf():
            return _info.decode(record.data or b"null")
        case ProcessOf():
            return _seen.decode(record.data or b"null")
        case OpenOf():
            return msgspec.json.decode(record.data or b"[]", type=list[str])
        case CancelOf():
            return Status((record.data or b"").decode())
        case StartOrder():
            id = (record.data or b"").decode()
            if record.attempt != FOUND and not execution.run.was_kept(record):  # on replay nothing else tells
                execution.own("children")[id] = question.options.on_parent_close
            return id
        case _:
            return None


class Answering(Streaming):
    """An execution whose body may ask questions of other workflows, and of its own past."""

    def patched(self, name: str) -> bool:
        """Whether a change of the code is for this run; the answer travels with the next barrier."""
        before = self.run.seq
        answer = self.run.patched(name, self.line.clock.now())
        if self.run.seq != before:
            self.dirty()
        return answer

    def begin_question(self, op: Op) -> None:
        begin(self, op)

    def abandon(self, op: Op) -> None:
        if op.is_open:
            _give_start_up(self, op)
        super().abandon(op)

    def settle_verdicts(self, asked: Mapping[str, Op], verdict: Verdict) -> None:
        settle_verdicts(self, asked, verdict)


def begin(execution: Execution, op: Op) -> None:
    """Do what it takes to answer."""
    question = op.what
    match question:
        case ResultOf():
            _watch_end(execution, op, question)
        case EventOf():
            _watch_event(execution, op, question)
        case StreamOf():
            _read(execution, op, watch_stream(execution, op, question.ask), only_failure=True)
        case InfoOf():
            _read(execution, op, _read_info(execution, question))
        case ProcessOf():
            _read(execution, op, _read_process(execution, question))
        case OpenOf():
            _read(execution, op, _read_open(execution, question))
        case CancelOf():
            _read(execution, op, _cancel_other(execution, op, question))
        case SendTo():
            _send(execution, op, question)
        case StartOrder():
            _start(execution, op, question)
        case _:
            raise TypeError(f"no such question: {question!r}")


# -- waits


# A wait begins with a look. What is waited for may have happened already, and the wake that it left may have been used
# up by the very claim that runs this body: so before the body may be put away for waiting, it must be known, by a read
# begun after the claim, that it has not. What happens after that leaves a wake of its own.


def _watch_end(execution: Execution, op: Op, question: ResultOf) -> None:
    def wait() -> None:
        child = question.id in execution.children
        parts: list[Timer | Watch] = [execution.line.watcher.end(question.id, told, child=child)]
        if question.until is not None:
            parts.append(execution.line.timers.at(question.until, lambda: _too_late(execution, op, question)))
        execution.begin_wait(op, *parts)

    def told(ended: Ended | Gone) -> None:
        if isinstance(ended, Gone):
            execution.end_wait(op.path)
            _read(execution, op, _gone(execution, op, question.id, wait), only_failure=True)
        else:  # from whoever saw the end; the body must run in a turn of its own
            execution.line.loop.call_soon(lambda: _observe(execution, op, *execution.end_of_child(ended)))

    untouched = not execution.row.epoch and not execution.woken  # no wake was used up, by a claim or since
    if question.id in execution.children and untouched and execution.host.runs(question.id):
        # The child has yet to write its end, or to hear that it is written: then its wake is still there.
        wait()
    else:
        _read(execution, op, _look_for_end(execution, op, question, told, wait), only_failure=True)


def _too_late(execution: Execution, op: Op, question: ResultOf) -> None:
    late = verbs.too_late(question.id, question.timeout or 0)
    execution.settle(op, Outcome.ERROR, encode_failure(late, traceback=False))


async def _look_for_end(
    execution: Execution, op: Op, question: ResultOf, told: Callable[[Ended], None], wait: Callable[[], None]
) -> bytes:
    id = question.id
    if id == execution.id and question.until is None:
        raise Misuse(
            f"workflow {id!r} waits for its own end, which would never come. To end it, return; to begin anew under "
            "the same id: continue_as_new(…)"
        )
    await _children_judged(execution)
    ended: dict[str, Ended] = await verbs.patiently(execution.line, execution.line.store.ended, [id])
    if id in ended:
        told(ended[id])
        return b""
    if id not in execution.children or execution.row.epoch:  # one of a claim before this may have been purged since
        await _must_exist(execution, id)
    if op.is_open and not execution.gone:
        wait()
    return b""


async def _gone(execution: Execution, op: Op, id: str, wait: Callable[[], None]) -> bytes:
    """No workflow has the id that the body waits for: it was deleted, unless its start is still on its way."""
    await all_durable(execution)
    if not await verbs.patiently(execution.line, execution.line.store.rows, [id]):
        raise await verbs.patiently(execution.line, gone, execution.line.store, id)
    if op.is_open and not execution.gone:
        wait()
    return b""


async def _children_judged(execution: Execution) -> None:
    """A rewound run must not observe a child from before the cut until its start is seen to be the same call."""
    if execution.run.origin != execution.run.key.run:
        await all_durable(execution)


def _watch_event(execution: Execution, op: Op, question: EventOf) -> None:
    def told(data: bytes | Gone | None) -> None:
        if isinstance(data, Gone):

            def wait() -> None:
                watch = execution.line.watcher.event(question.id, question.name, told)
                execution.own("waits").setdefault(op.path, []).append(watch)

            _read(execution, op, _gone(execution, op, question.id, wait), only_failure=True)
        else:
            outcome = Outcome.NONE if data is None else Outcome.VALUE
            execution.line.loop.call_soon(_observe, execution, op, outcome, data)

    _read(execution, op, _look_for_event(execution, op, question, told), only_failure=True)


async def _look_for_event(
    execution: Execution, op: Op, question: EventOf, told: Callable[[bytes | Gone | None], None]
) -> bytes:
    line, id, name = execution.line, question.id, question.name
    await _children_judged(execution)
    ended = await verbs.patiently(line, line.store.ended, [id])
    # Read after the end: an event that was set before it is then never missed.
    events = await verbs.patiently(line, line.store.events, [(id, name)])
    if id in ended or (id, name) in events:
        told(events.get((id, name)))
        return b""
    if id not in execution.children or execution.row.epoch:  # one of a claim before this may have been purged since
        await _must_exist(execution, id)
    if op.is_open and not execution.gone:
        parts: list[Timer | Watch] = [line.watcher.event(id, name, told)]
        if question.until is not None:
            parts.append(line.timers.at(question.until, lambda: execution.settle(op, Outcome.NONE, None)))
        execution.begin_wait(op, *parts)
    return b""


def _observe(execution: Execution, op: Op, outcome: Outcome, data: bytes | None) -> None:
    """Hand over what another workflow gave."""
    if not unread(execution, op, data):
        execution.settle(op, outcome, data)


# -- reads and commands: answered by a task of the host, recorded like a step's outcome


def _read(execution: Execution, op: Op, coroutine: Any, only_failure: bool = False) -> None:
    task = asyncio.Task(coroutine, loop=execution.line.loop)
    execution.host.keep(task)

    def done(task: asyncio.Task[bytes]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            execution.settle(op, Outcome.ERROR, encode_failure(error))
        elif error is None and not only_failure:  # else it was not to be done any more
            execution.settle(op, Outcome.VALUE, task.result())

    task.add_done_callback(done)


async def _must_exist(execution: Execution, id: str) -> bytes:
    if execution.host.has(id):
        return b""
    await all_durable(execution)  # its start may be in this very run's last writes
    if not await verbs.patiently(execution.line, execution.line.store.rows, [id]):
        raise await verbs.patiently(execution.line, gone, execution.line.store, id)
    return b""


async def _read_info(execution: Execution, question: InfoOf) -> bytes:
    line = execution.line
    rows: dict[str, WorkflowRow] = await verbs.patiently(line, line.store.rows, [question.id])
    if question.id not in rows:
        await all_durable(execution)  # its start may be in this very run's last writes
        rows = await verbs.patiently(line, line.store.rows, [question.id])
    if question.id not in rows:
        raise not_found(question.id, execution.line.app)
    return _encode(info_of(rows[question.id]))


async def _read_process(execution: Execution, question: ProcessOf) -> bytes:
    await all_durable(execution)  # its start may be in this very run's last writes
    return _encode(await processes.look(execution.line, question, verbs.patiently))


async def _read_open(execution: Execution, question: OpenOf) -> bytes:
    rows: dict[str, WorkflowRow] = await verbs.patiently(execution.line, execution.line.store.rows, question.ids)
    return _encode([id for id in question.ids if id in rows and rows[id].status.open])


async def _cancel_other(execution: Execution, op: Op, question: CancelOf) -> bytes:
    await may_act(execution, op)
    return str(await verbs.cancel(execution.line, question)).encode()


# -- writes with a verdict


def _derived(execution: Execution, path: str, what: bytes) -> bytes:
    """An identity that a repeat after a crash makes again."""
    return hashlib.blake2b(path.encode(), key=execution.run.lineage, person=what, digest_size=16).digest()


def message_of(execution: Execution, path: str, question: SendTo, known: bool) -> Send:
    """The message of a send in a workflow: one per lineage and path, whoever repeats it."""
    # The first ten bytes keep the order of sending (inboxes sort by them), also within one microsecond; the rest makes
    # it this call's own.
    place = (execution.run.seq + len(execution.asked_there)) % 65_536
    mid = execution.run.now.to_bytes(8, "big") + place.to_bytes(2, "big") + _derived(execution, path, b"message")[:6]
    key = question.key or _derived(execution, path, b"key").hex()
    return Send(question.id, mid, question.topic, question.data, execution.line.new_token(), key, execution.id, known)


def _send(execution: Execution, op: Op, question: SendTo) -> None:
    message = message_of(execution, op.path, question, known=False)
    execution.run.add_send(message)
    execution.own("asked_there")[op.path] = op
    op.what = (question, message.mid)
    execution.dirty()


def _give_start_up(execution: Execution, op: Op) -> None:
    """The body waits for the verdict no longer: what it has begun is to it what it will be to a replay, unrecorded."""
    match op.what:
        case (StartOrder() as order, before):
            _put_back(execution, order.options.id or "", before)
        case StartOrder() as order:
            pass
        case _:
            return
    if order.options.on_parent_close != "wait":
        # What this life or an earlier one has begun by this call is its child, and is named at its end.
        id = order.options.id or child_id(RunKey(execution.id, execution.run.origin), op.path)
        execution.own("children").setdefault(id, order.options.on_parent_close)


def _put_back(execution: Execution, id: str, before: str | None) -> None:
    """A start of this id has begun nothing: what the run knew of it before holds."""
    if before is None:
        execution.own("children").pop(id, None)
    else:
        execution.own("children")[id] = before


def _start(execution: Execution, op: Op, order: StartOrder) -> None:
    id = order.options.id
    if order.options.dedup is not None:
        _read(execution, op, _start_once(execution, op, order))
        return
    assert id is not None, "a start without a chosen id is a note"
    op.what = (order, execution.children.get(id))
    execution.own("children")[id] = order.options.on_parent_close
    execution.host.start_child(execution, order, id, op.path)
    execution.own("asked_there")[op.path] = op
    execution.dirty()


def settle_verdicts(execution: Execution, asked: Mapping[str, Op], verdict: Verdict) -> None:
    """The commit that carried them is durable: record what the database said."""
    for op in asked.values():
        if execution.gone or not op.is_open:
            continue
        match op.what:
            case (SendTo() as question, bytes() as mid):
                if mid in verdict.undelivered:
                    error = verbs.undelivered(question.id, verdict.undelivered[mid], execution.line.app)
                    execution.settle(op, Outcome.ERROR, encode_failure(error))
                else:
                    execution.host.post.announce([question.id])
                    execution.settle(op, Outcome.NONE, None)
            case (StartOrder() as order, before):
                _settle_start(execution, op, order, before, verdict.exists.get(order.options.id or ""))
            case _:
                raise TypeError(f"no verdict awaited by {op.what!r}")


def _settle_start(
    execution: Execution, op: Op, order: StartOrder, before: str | None, exists: WorkflowRow | None
) -> None:
    id = order.options.id or ""
    if exists is None:
        execution.settle(op, Outcome.VALUE, id.encode())
        return
    _put_back(execution, id, before)  # somebody else's, unless an earlier call has begun it
    mine = _is_mine(execution, op, exists)
    if mine:
        execution.own("children")[id] = order.options.on_parent_close
    elif order.options.on_conflict == "replace":
        _read(execution, op, _replace(execution, op, order, exists))
        return
    try:
        if not mine:  # mine may have continued as a new run, with another input
            _check_found(order, exists)
    except WorkflowConflict as conflict:
        execution.settle(op, Outcome.ERROR, encode_failure(conflict))
    else:
        if not mine:
            op.attempt = FOUND
        execution.settle(op, Outcome.VALUE, id.encode())


def _is_mine(execution: Execution, op: Op, row: WorkflowRow) -> bool:
    """Whether this very call has begun what has the id: an earlier try of it, before a crash."""
    run = execution.run
    return (row.parent, row.parent_path) == (execution.id, op.path) and run.origin <= row.parent_run <= run.key.run


async def _start_once(execution: Execution, op: Op, order: StartOrder) -> bytes:
    """Start a child unless its deduplication key is another's; a first try, before a crash, is known by its id."""
    line = execution.line
    await may_act(execution, op)
    id = order.options.id or child_id(RunKey(execution.id, execution.run.origin), op.path)
    start = child_start(execution, routed_child(execution, order, id), id, op.path)
    over: RunKey | None = None
    while True:
        row = await once.try_start(line, order, start, verbs.patiently, over)
        execution.host.look()
        line.store.hint()
        if row is None or (row.id == id and _is_mine(execution, op, row)):
            _begun(execution, op, order, id)
            return id.encode()
        if order.options.on_conflict == "replace":
            _refuse_itself(execution, row)
        if row.id == id and not once.waits_anew(order, row):
            if order.options.on_conflict == "replace":
                over = await verbs.make_way(line, row)
                continue
            _check_found(order, row)
        elif await once.resolve(line, order, row, verbs.cancel):
            continue
        op.attempt = FOUND
        return row.id.encode()


def _refuse_itself(execution: Execution, row: WorkflowRow) -> None:
    if row.id == execution.id:
        raise WorkflowConflict(
            f"workflow {row.id!r} asked to replace itself; to begin anew under the same id: continue_as_new(…)"
        )


def _check_found(order: StartOrder, row: WorkflowRow) -> None:
    """Raise ``WorkflowConflict`` unless the order attaches to what has the id."""
    if order.options.on_conflict == "fail":
        raise WorkflowConflict(
            f"workflow id {row.id!r} exists already ({row.name}, {row.status}); on_conflict='fail' asked for this error"
        )
    check_same(row, order, None)


async def _replace(execution: Execution, op: Op, order: StartOrder, row: WorkflowRow) -> bytes:
    """Cancel what has the id, and begin the child as its next run; again from the start after a crash."""
    line = execution.line
    _refuse_itself(execution, row)
    start = child_start(execution, routed_child(execution, order, row.id), row.id, op.path)
    while not _is_mine(execution, op, row):
        await verbs.make_way(line, row)
        if await verbs.patiently(line, line.store.replace, row.key, start, line.new_token()):
            execution.host.look()
            break
        row = (await verbs.patiently(line, line.store.rows, [row.id]))[row.id]
    _begun(execution, op, order, row.id)
    return row.id.encode()


def _begun(execution: Execution, op: Op, order: StartOrder, id: str) -> None:
    """It is this run's child; of a start that was given up meanwhile is known what a replay will know."""
    if op.is_open:
        execution.own("children")[id] = order.options.on_parent_close
