"""The bridge of the async face: its calls are awaited. ``sface`` holds the same names for blocking code."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from perdure.client import outbox, verbs
from perdure.client.line import Line
from perdure.client.operate import PAGE, page
from perdure.client.questions import ResultOf, SendTo, StartOrder
from perdure.client.streams import Reading
from perdure.definitions import ResourceDef, StepDef
from perdure.errors import Misuse, NotDurable
from perdure.model.records import WorkflowRow
from perdure.query.conditions import Query
from perdure.runtime import appends
from perdure.runtime.context import async_body, outside, refuse_own_end, refuse_session_in_body
from perdure.runtime.face import Home, outside_line, refuse_foreign, refuse_other
from perdure.runtime.reading import decoder
from perdure.runtime.steps import value_outside
from perdure.runtime.unread import value_of
from perdure.serde.values import Shape
from perdure.sessions.base import AsyncSession, Session, arun, run
from perdure.sessions.find import awaited, blocking, session_of
from perdure.store.within import Within

if TYPE_CHECKING:  # loaded where an app opens, not where it is declared
    from perdure.runtime.engine import Engine

FACE: str = "perdure"
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def body(what: str) -> Any | None:
    """The execution whose async body is calling, None outside. Raises ``WrongFace`` in a sync one."""
    execution = async_body()
    if execution is None:
        refuse_other(FACE, what)
    return execution


# None, None: of Any, Any what overloads give, as those of asyncio.gather, is Any to mypy
def at_the_call(fn: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[None, None, R]]:
    """For an ``async def`` of the public face: what must not wait until somebody awaits it.

    A sync body is refused, since it never awaits; an async one is held to it.
    """
    name = fn.__qualname__

    @wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        refuse_other(FACE, name)
        made = fn(*args, **kwargs)
        execution = async_body()
        if execution is not None:
            execution.call_made(made, name)
        return made

    return call


def in_body() -> bool:
    """Whether a workflow body is calling."""
    return async_body() is not None


def need_body(what: str) -> Any:
    """The calling execution; raises ``OutsideWorkflow`` naming where ``what`` belongs."""
    execution = body(what)
    if execution is None:
        raise outside(what)
    return execution


async def on_engine(engine: Engine, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on the engine's loop, which is usually the caller's own."""
    loop = asyncio.get_running_loop()
    if loop is engine.loop:
        return await make()
    assert engine.loop is not None
    refuse_still(engine.loop, engine.thread)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), engine.loop))


def refuse_still(loop: asyncio.AbstractEventLoop, thread: int) -> None:
    """Raise ``Misuse`` if an app's loop turns no more, or not while the caller's does, which would wait for ever."""
    if loop.is_closed():
        what = "is closed: asyncio.run() ends the loop that it makes, and all that was opened on it"
    elif thread == threading.get_ident() and not loop.is_running():
        what = "does not run while this one does"
    else:
        return
    raise Misuse(
        f"this call was made on another event loop than the app was opened on, and that one {what}. Open and use an "
        "app within one asyncio.run(); in tests, give the fixture that opens it the loop of the tests that use it "
        "(pytest-asyncio: loop_scope=); where loops come and go, use perdure.sync, which has a loop of its own"
    )


async def ask(home: Home, question: Any) -> Any:
    """Ask inside a workflow (recorded) or outside (answered from the database)."""
    execution = body("this call")
    if execution is not None:
        refuse_foreign(home, execution)
        return await execution.ask(question)
    engine = home.engine()
    refuse_own_end(question, engine.line.app)
    line = outside_line(engine)
    return await on_engine(engine, lambda: verbs.answer(line, question))


async def start_many(home: Home, orders: Sequence[StartOrder]) -> list[verbs.Begun]:
    """Start many, outside a workflow."""
    engine = home.engine()
    line = outside_line(engine)
    begun: list[verbs.Begun] = await on_engine(engine, lambda: verbs.start_many(line, orders))
    return begun


async def start(home: Home, order: StartOrder) -> verbs.Begun:
    """Start one: a child inside a workflow."""
    execution = body("a workflow")
    if execution is None:
        return await ask(home, order)  # type: ignore[no-any-return]
    refuse_foreign(home, execution)
    return verbs.Begun(await start_child(execution, execution.next_path(), order))


async def start_within(home: Home, order: StartOrder) -> verbs.Begun:
    """Start one in the caller's own transaction."""
    refuse_session_in_body(body("session="))
    session = session_of(order.options.session)
    engine = home.engine()
    line = outside_line(engine)
    ordered = await on_engine(engine, lambda: outbox.order_start(line, order))
    row = await _within(session, lambda session, within: outbox.put_start(session, order, ordered, within=within))
    begun: verbs.Begun = await on_engine(engine, lambda: outbox.begun(ordered, order, row))
    return begun


async def send_within(home: Home, question: SendTo, given: object) -> None:
    """Send in the caller's own transaction."""
    refuse_session_in_body(body("session="))
    session = session_of(given)
    engine = home.engine()
    line = outside_line(engine)
    ordered = await on_engine(engine, lambda: outbox.order_send(line, question))
    verdict = await _within(session, lambda session, within: outbox.put_send(session, ordered, within=within))
    outbox.check_delivered(ordered, verdict)


async def _within(session: Session | AsyncSession, flow: Callable[[Session | AsyncSession, bool], Within[T]]) -> T:
    """Through the session, here: it is the caller's, and its calls block or are awaited as his own do."""
    if (waits := awaited(session)) is not None:
        return await arun(waits, flow(waits, await waits.in_transaction()))
    blocks = blocking(session)
    assert blocks is not None, "one or the other"
    return run(blocks, flow(blocks, blocks.in_transaction()))


async def start_child(execution: Any, path: str, order: StartOrder) -> str:
    if order.options.id is None and order.options.dedup is None:
        return execution.note_child(path, order, order.fingerprint)  # type: ignore[no-any-return]
    return await execution.ask(order, path=path)  # type: ignore[no-any-return]


def call(home: Home, order: StartOrder, shape: Shape) -> Coroutine[Any, Any, Any]:
    """Call a workflow: a durable start that waits for its result; a child inside a workflow."""
    execution = body("a workflow")
    if execution is None:
        return _call_outside(home, order, shape)
    refuse_foreign(home, execution)
    path: str = execution.next_path()
    child = _call_child(execution, path, order, shape)
    execution.call_made(child, order.name, path)
    return child


def _call_outside(home: Home, order: StartOrder, shape: Shape) -> Coroutine[Any, Any, Any]:
    engine = home.engine()
    line = outside_line(engine)
    if asyncio.get_running_loop() is engine.loop:
        return verbs.call(line, order, shape)
    return on_engine(engine, lambda: verbs.call(line, order, shape))


async def _call_child(execution: Any, path: str, order: StartOrder, shape: Shape) -> Any:
    id = await start_child(execution, path, order)
    try:
        return await execution.ask(ResultOf(id, shape), path=f"{path}.r")
    except asyncio.CancelledError:
        execution.cancel_child(path, id)
        raise


def step_outside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
    """Outside a workflow a step is the plain function; a ``def`` one runs in a thread, since here it is awaited."""
    if (calls := definition.calls) is not None:
        if definition.is_async:
            return calls.aoutside(definition, args, kwargs)  # type: ignore[no-any-return]
        return asyncio.to_thread(calls.outside, definition, args, kwargs)
    if definition.is_async:
        return definition.fn(*args, **kwargs)  # type: ignore[no-any-return]
    return _in_thread(definition, args, kwargs)


async def _in_thread(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return value_outside(definition, await asyncio.to_thread(definition.fn, *args, **kwargs))


async def sleep(duration: int) -> None:
    """In a workflow body: a durable timer of the body's own loop."""
    need_body("sleep")
    await asyncio.sleep(duration / 1e6)


async def recv(topic: str, shape: Shape, timeout: int | None) -> Any:
    execution = need_body("recv")
    return value_of(execution, await execution.recv(topic, timeout), shape)


async def write_stream(name: str, shape: Shape, value: Any) -> None:
    """In a body a note; in a step it waits for room, if too much waits to be written."""
    room = appends.append(*appends.speaker(f"write_stream({name!r})"), name, shape, value)
    if room is not None:
        await asyncio.wrap_future(room)


async def close_stream(name: str) -> None:
    appends.close(body("close_stream"), name)


class StreamReader:
    """Values of a stream, one after the other, and in the end its end."""

    def __init__(self, home: Home, id: str, name: str, shape: Shape, offset: int) -> None:
        body("read_stream")
        self._home = home
        self._reading = Reading(id, name, offset, decoder(async_body(), shape))

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> Any:
        return (await self.numbered())[1]

    async def numbered(self) -> tuple[int, Any]:
        """The next value and its offset. Raises ``StopAsyncIteration`` at the end."""
        reading = self._reading
        while reading.empty:
            if reading.ended:
                raise StopAsyncIteration
            reading.feed(*await ask(self._home, reading.question))
        return reading.pop()

    async def some(self, patience: int | None) -> list[Any] | None:
        """The values of the next page: none, if none has come in so many microseconds; None at the end."""
        reading = self._reading
        if reading.ended:
            return None
        reading.feed(*await ask(self._home, reading.within(patience)))
        return reading.rest()


async def drive(work: Coroutine[Any, Any, T]) -> T:
    """What functions of either colour answer: awaited here, run at once in the sync face."""
    return await work


# -- opening


async def open_home(home: Home, *, works: bool) -> None:
    home.name = home.name or await home.find_name()
    engine = home.new_engine(works=works)

    async def resources() -> None:
        for definition in home.registry.resources.values():
            await open_resource(definition)
        home.opened(engine)  # what is recovered may begin at once, and use the app

    try:
        await engine.open(before_work=resources)
    except BaseException:
        home.opened(None)
        await close_resources(home.registry.resources.values())
        raise
    home.opened(engine)


async def close_home(home: Home) -> None:
    """Closing what is closed does nothing."""
    if not home.is_open:
        return
    engine = home.engine()
    assert engine.loop is not None
    if not (ended := engine.loop.is_closed()):
        refuse_still(engine.loop, engine.thread)
    try:
        if ended:
            engine.abandon()
        else:
            await on_engine(engine, engine.close)
    finally:
        home.opened(None)
        await close_resources(home.registry.resources.values())


async def open_resource(definition: ResourceDef) -> None:
    definition.opened.append(iterator := definition.fn())
    definition.value.append(await anext(iterator))


async def close_resources(opened: Iterable[ResourceDef]) -> None:
    """All of them, even if one raises. A harness has also such as block."""
    async with AsyncExitStack() as last_first:
        for definition in opened:
            for iterator in definition.opened:
                if definition.is_async:
                    last_first.push_async_callback(anext, iterator, None)
                else:
                    last_first.callback(next, iterator, None)
                last_first.callback(definition.value.clear)
            definition.opened.clear()


@asynccontextmanager
async def lifespan(home: Home) -> AsyncGenerator[None, None]:
    """Open while an ASGI application is."""
    await open_home(home, works=True)
    try:
        yield
    finally:
        await close_home(home)


async def run_until_signal(home: Home) -> None:
    """Work until SIGTERM or SIGINT; then drain. A second signal stops at once."""
    await open_home(home, works=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await close_home(home)


def run_blocking(home: Home) -> None:
    asyncio.run(run_until_signal(home))


async def operate(home: Home, what: str, work: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
    """What an operator reads or does, from outside any workflow: a body that is replayed would do it again.

    The one door for all of it. Raises ``NotDurable`` in a workflow's body.
    """
    if body(what) is not None:
        raise NotDurable(
            f"{what} was called in a workflow's body, where it would be done again at each replay; do it in a step"
        )
    engine = home.engine()
    line = outside_line(engine)
    done: T = await on_engine(engine, lambda: work(line))
    return done


async def rows(home: Home, query: Query, limit: int | None) -> AsyncIterator[WorkflowRow]:
    """A listing, page by page, of ``limit`` rows at most."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        asked = partial(page, query=query, cursor=cursor, limit=PAGE if left is None else min(PAGE, left))
        found = await operate(home, "client.list()", asked)
        for row in found.rows:
            yield row
        cursor = found.cursor
        if cursor is None:
            return
        left = None if left is None else left - len(found.rows)
