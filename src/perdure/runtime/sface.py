"""The bridge of the sync face: its calls block. ``aface`` holds the same names for awaited code.

An engine of the sync face lives on an event loop of its own, in a thread of its own (``Portal``).
"""

from __future__ import annotations

import asyncio
import atexit
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.client import outbox, verbs
from perdure.client.line import Line
from perdure.client.operate import PAGE, page
from perdure.client.questions import ResultOf, SendTo, StartOrder, decode_outcome, outcome_of
from perdure.client.streams import Reading
from perdure.definitions import ResourceDef, StepDef
from perdure.errors import Cancelled, NotDurable, WrongFace
from perdure.model.real import own_runner
from perdure.model.records import Ended, WorkflowRow
from perdure.query.conditions import Query
from perdure.runtime import appends
from perdure.runtime.call_off import CallOff, in_thread
from perdure.runtime.callers import CALLER, Caller
from perdure.runtime.collected import COLLECTOR
from perdure.runtime.context import outside, refuse_own_end, refuse_session_in_body, sync_body
from perdure.runtime.face import Home, outside_line, refuse_foreign, refuse_other
from perdure.runtime.plain import plain
from perdure.runtime.reading import decoder
from perdure.runtime.steps import value_outside
from perdure.runtime.unread import value_of
from perdure.serde.values import Shape
from perdure.sessions.base import Session, run
from perdure.sessions.find import blocking, session_of

if TYPE_CHECKING:  # loaded where an app opens, not where it is declared
    from perdure.runtime.engine import Engine

FACE: str = "perdure.sync"
_ON_LOOP = (
    "{} of perdure.sync was called on {}, which would stand still, and be waited for. In a step: write the step 'def', "
    "and it has a thread of its own; elsewhere use perdure, and await."
)
JOIN_SECONDS = 10.0  # that somebody who is in a hurry waits for a loop to end
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Portal:
    """A thread with an event loop, for blocking callers."""

    loop: asyncio.AbstractEventLoop
    _stop: asyncio.Event

    def __init__(self, name: str) -> None:
        self.at_exit: Callable[[], None] | None = None
        self.closing = threading.RLock()  # one closes, others wait for it; again in one thread: a signal's handler
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"perdure-{name}", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def _serve(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            self._ready.set()
            await self._stop.wait()

        try:
            with own_runner() as runner:
                runner.run(main())
        except BaseException as error:  # no loop can be made where no file may be opened
            if self._ready.is_set():
                raise
            self._failed = error
            self._ready.set()

    def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine on the loop and wait. Interrupting the wait does not interrupt what was asked for."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result()

    def carry_out(self, make: Callable[[], Coroutine[Any, Any, Any]], off: CallOff | None = None) -> None:
        """Run it and wait; interrupting the wait, or calling it off, cancels it, and waits until it has let go."""
        if off is not None:
            off.check()
        tasks: list[asyncio.Task[Any]] = []
        over = threading.Event()

        def begin() -> None:
            tasks.append(task := self.loop.create_task(make()))
            task.add_done_callback(lambda _task: over.set())

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self.loop.call_soon_threadsafe(begin)
        try:
            with nullcontext() if off is None else off.by(lambda: self.loop.call_soon_threadsafe(cancel)):
                over.wait()
        except BaseException:
            self.loop.call_soon_threadsafe(cancel)
            over.wait(JOIN_SECONDS)
            raise
        tasks[0].result()

    def close(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(JOIN_SECONDS)


_portals: dict[int, Portal] = {}  # by engine: the loop it lives on


def body(what: str) -> Any | None:
    """The execution whose sync body is calling, None outside. Raises ``WrongFace`` in an async one."""
    execution = sync_body()
    if execution is None:
        refuse_other(FACE, what)
    return execution


def at_the_call(fn: F) -> F:
    """Nothing to do: a blocking function is refused when it is called."""
    return fn


def in_body() -> bool:
    """Whether a workflow body is calling."""
    return sync_body() is not None


def need_body(what: str) -> Any:
    """The calling execution; raises ``OutsideWorkflow`` naming where ``what`` belongs."""
    execution = body(what)
    if execution is None:
        raise outside(what)
    return execution


def engine_of(home: Home) -> Engine:
    """The engine that answers. Raises ``WrongFace`` on its own loop, which would wait for itself for ever."""
    engine = home.engine()
    if engine.thread == threading.get_ident():
        raise WrongFace(_ON_LOOP.format("a function", f"the event loop of app {home.name!r}"))
    return engine


def on_engine(engine: Engine, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on the engine's loop and wait."""
    assert engine.loop is not None
    caller = CALLER.get()
    if caller is None:
        return asyncio.run_coroutine_threadsafe(make(), engine.loop).result()
    asked = asyncio.run_coroutine_threadsafe(_answering(caller, make()), engine.loop)
    caller.waits()
    return asked.result()


async def _answering(caller: Caller, asked: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await asked
    finally:
        caller.goes_on()


def ask(home: Home, question: Any) -> Any:
    """Ask inside a workflow (recorded) or outside (answered from the database)."""
    execution = body("this call")
    if execution is not None:
        refuse_foreign(home, execution)
        return execution.ask(question)
    engine = engine_of(home)
    refuse_own_end(question, engine.line.app)
    line = outside_line(engine)
    if isinstance(question, ResultOf) and line.patience is None:
        ended = _end_told_here(engine, question)
        if ended is not None:
            return decode_outcome(*outcome_of(ended), question.shape)
    return on_engine(engine, lambda: verbs.answer(line, question))


def _end_told_here(engine: Engine, question: ResultOf) -> Ended | None:
    """The end of a run that this process started, told by the run itself: no task is made, nothing is asked."""
    told: asyncio.Future[Any] | None = question.ended
    if told is None or engine.loop is None:
        return None
    if not told.done():
        if question.timeout is not None:
            return None
        gate = threading.Lock()
        gate.acquire()
        caller = CALLER.get()

        def release(_told: asyncio.Future[Any]) -> None:
            if caller is not None:
                caller.goes_on()
            gate.release()

        engine.loop.call_soon_threadsafe(told.add_done_callback, release)
        if caller is not None:
            caller.waits()
        gate.acquire()
    found = None if told.cancelled() else told.result()
    return found if isinstance(found, Ended) else None


def start_many(home: Home, orders: Sequence[StartOrder]) -> list[verbs.Begun]:
    """Start many, outside a workflow."""
    engine = engine_of(home)
    line = outside_line(engine)
    begun: list[verbs.Begun] = on_engine(engine, lambda: verbs.start_many(line, orders))
    return begun


def start(home: Home, order: StartOrder) -> verbs.Begun:
    """Start one: a child inside a workflow."""
    execution = body("a workflow")
    if execution is None:
        here = engine_of(home).begin_here(order, until_end=False)
        if here is not None and here[1] is None:
            return here[0]
        return ask(home, order)  # type: ignore[no-any-return]
    refuse_foreign(home, execution)
    return verbs.Begun(start_child(execution, execution.next_path(), order))


def start_within(home: Home, order: StartOrder) -> verbs.Begun:
    """Start one in the caller's own transaction."""
    refuse_session_in_body(body("session="))
    session = _blocking(order.options.session)
    engine = engine_of(home)
    line = outside_line(engine)
    ordered = on_engine(engine, lambda: outbox.order_start(line, order))
    row = run(session, outbox.put_start(session, order, ordered, within=session.in_transaction()))
    begun: verbs.Begun = on_engine(engine, lambda: outbox.begun(ordered, order, row))
    return begun


def send_within(home: Home, question: SendTo, given: object) -> None:
    """Send in the caller's own transaction."""
    refuse_session_in_body(body("session="))
    session = _blocking(given)
    engine = engine_of(home)
    line = outside_line(engine)
    ordered = on_engine(engine, lambda: outbox.order_send(line, question))
    verdict = run(session, outbox.put_send(session, ordered, within=session.in_transaction()))
    outbox.check_delivered(ordered, verdict)


def _blocking(given: object) -> Session:
    session = session_of(given)
    if (blocks := blocking(session)) is None:
        raise WrongFace(f"session=: {session.kind} is awaited, which perdure.sync cannot; use perdure there")
    return blocks


def start_child(execution: Any, path: str, order: StartOrder) -> str:
    if order.options.id is None and order.options.dedup is None:
        return execution.note_child(path, order, order.fingerprint)  # type: ignore[no-any-return]
    return execution.ask(order, path=path)  # type: ignore[no-any-return]


def call(home: Home, order: StartOrder, shape: Shape) -> Any:
    """Call a workflow: a durable start that waits for its result; a child inside a workflow."""
    execution = body("a workflow")
    if execution is None:
        engine = engine_of(home)
        line = outside_line(engine)
        here = engine.begin_here(order, until_end=True)
        if here is not None and isinstance(here[1], Ended):
            return decode_outcome(*outcome_of(here[1]), shape)
        if here is not None and here[1] is None:  # it goes on elsewhere
            return on_engine(engine, lambda: verbs.result(line, ResultOf(here[0].id, shape)))
        return on_engine(engine, lambda: verbs.call(line, order, shape))
    refuse_foreign(home, execution)
    path = execution.next_path()
    id = start_child(execution, path, order)
    try:
        return execution.ask(ResultOf(id, shape), path=f"{path}.r")
    except Cancelled:
        execution.on_host(lambda: execution.cancel_child(path, id))
        raise


def step_outside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Outside a workflow a step is the plain function; an ``async def`` one runs on a loop, since here it blocks."""
    if COLLECTOR.thread:
        COLLECTOR.refuse()
    if definition.is_async:
        _refuse_running(f"step {definition.name!r}, an 'async def',")
    if (calls := definition.calls) is not None:
        if definition.is_async:
            return asyncio.run(calls.aoutside(definition, args, kwargs))
        return calls.outside(definition, args, kwargs)
    if definition.is_async:
        return asyncio.run(definition.fn(*args, **kwargs))
    return value_outside(definition, definition.fn(*args, **kwargs))


def _refuse_running(what: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongFace(_ON_LOOP.format(what, "a running event loop"))


def sleep(duration: int) -> None:
    """In a workflow body: a durable timer."""
    need_body("sleep").sleep(duration)


def recv(topic: str, shape: Shape, timeout: int | None) -> Any:
    execution = need_body("recv")
    return value_of(execution, execution.recv(topic, timeout), shape)


def write_stream(name: str, shape: Shape, value: Any) -> None:
    """In a body a note; in a step it waits for room, if too much waits to be written."""
    refuse_other(FACE, "write_stream")
    execution, step = appends.speaker(f"write_stream({name!r})")
    room = appends.append(execution, step, name, shape, value)
    if room is not None and threading.current_thread() is not execution.host.thread:  # which is the one to make room
        room.result()


def close_stream(name: str) -> None:
    appends.close(body("close_stream"), name)


class StreamReader:
    """Values of a stream, one after the other, and in the end its end."""

    def __init__(self, home: Home, id: str, name: str, shape: Shape, offset: int) -> None:
        body("read_stream")
        self._home = home
        self._reading = Reading(id, name, offset, decoder(sync_body(), shape))

    def __iter__(self) -> StreamReader:
        return self

    def __next__(self) -> Any:
        return self.numbered()[1]

    def numbered(self) -> tuple[int, Any]:
        """The next value and its offset. Raises ``StopIteration`` at the end."""
        reading = self._reading
        while reading.empty:
            if reading.ended:
                raise StopIteration
            reading.feed(*ask(self._home, reading.question))
        return reading.pop()

    def some(self, patience: int | None) -> list[Any] | None:
        """The values of the next page: none, if none has come in so many microseconds; None at the end."""
        reading = self._reading
        if reading.ended:
            return None
        reading.feed(*ask(self._home, reading.within(patience)))
        return reading.rest()


def drive(work: Coroutine[Any, Any, T]) -> T:
    """What functions of either colour answer: they block here."""
    return plain(work)


# -- opening


def open_home(home: Home, off: CallOff | None = None, *, works: bool) -> None:
    off = off or CallOff()
    portal = Portal(home.name or "client")
    try:
        home.name = home.name or portal.run(home.find_name)
        engine = home.new_engine(works=works)
    except BaseException:
        portal.close()
        raise
    _portals[id(engine)] = portal
    try:
        if works:
            for definition in home.registry.resources.values():
                off.check()
                open_resource(definition)
        portal.carry_out(lambda: engine.open(before_work=_open_for(home, engine)), off)
        home.opened(engine)
        off.finish()
    except BaseException:
        home.opened(None)
        try:
            if engine.is_open:  # interrupted, or called off, when it was
                portal.carry_out(engine.cut_short)
        finally:
            _portals.pop(id(engine)).close()
            close_resources(home)
        raise
    portal.at_exit = partial(close_home, home)  # an object of its own: an app that is closed leaves the others theirs
    atexit.register(portal.at_exit)


def _open_for(home: Home, engine: Engine) -> Callable[[], Coroutine[Any, Any, None]]:
    async def before_work() -> None:
        home.opened(engine)  # what is recovered may begin at once, and use the app

    return before_work


def close_home(home: Home, off: CallOff | None = None) -> None:
    """Closing what is closed does nothing; who closes while another thread does waits for it."""
    if not home.is_open:
        return
    engine = home.engine()
    portal = _portals.get(id(engine))
    with nullcontext() if portal is None else portal.closing:
        if portal is not None and id(engine) not in _portals:
            return  # another thread was at it, and has closed all
        if portal is not None and portal.at_exit is not None:
            atexit.unregister(portal.at_exit)
        try:
            if portal is not None:
                portal.carry_out(engine.close, off)
        finally:
            _portals.pop(id(engine), None)
            home.opened(None)
            if portal is not None:
                portal.close()
            close_resources(home)


def open_resource(definition: ResourceDef) -> None:
    definition.opened.append(iterator := definition.fn())
    definition.value.append(next(iterator))


def close_resources(home: Home) -> None:
    """All of them, even if one raises."""
    with ExitStack() as last_first:
        for definition in home.registry.resources.values():
            for iterator in definition.opened:
                last_first.callback(next, iterator, None)
                last_first.callback(definition.value.clear)
            definition.opened.clear()


@asynccontextmanager
async def lifespan(home: Home) -> AsyncGenerator[None, None]:
    """Open while an ASGI application is: its event loop is not blocked meanwhile."""
    opening = CallOff()
    try:
        await in_thread(partial(open_home, home, works=True), opening)
        yield
    finally:
        if opening.done:
            await in_thread(partial(close_home, home), CallOff())


def run_blocking(home: Home) -> None:
    """Work until SIGTERM or SIGINT; then drain."""
    open_home(home, works=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        stop.wait()
    finally:
        close_home(home)


def operate(home: Home, what: str, work: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
    """What an operator reads or does, from outside any workflow: a body that is replayed would do it again.

    The one door for all of it. Raises ``NotDurable`` in a workflow's body.
    """
    if body(what) is not None:
        raise NotDurable(
            f"{what} was called in a workflow's body, where it would be done again at each replay; do it in a step"
        )
    engine = engine_of(home)
    line = outside_line(engine)
    done: T = on_engine(engine, lambda: work(line))
    return done


def rows(home: Home, query: Query, limit: int | None) -> Iterator[WorkflowRow]:
    """A listing, page by page, of ``limit`` rows at most."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        asked = partial(page, query=query, cursor=cursor, limit=PAGE if left is None else min(PAGE, left))
        found = operate(home, "client.list()", asked)
        yield from found.rows
        cursor = found.cursor
        if cursor is None:
            return
        left = None if left is None else left - len(found.rows)
