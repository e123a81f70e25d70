"""The workflows of the chaos run: interpreters of the trees of ``plan``, one of each face.

Every effect is noted in a ledger outside the database by the step itself, when it begins and when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

import perdure.sync as blocking
from chaos import bank
from perdure import App, Event, Rate, Retry, Stream, Topic, close_stream, current, recv, set_event, sleep, write_stream
from perdure.errors import Cancelled, StepOutcomeUnknown
from perdure.testing.histcheck import Ledger
from perdure.testing.plans import draw
from perdure.testing.play import Play

app = App("chaos")
sync_app = blocking.App("chaos-sync")
letters = Topic[str]("letters")
words = Topic[str]("words")
never = Topic[str]("never")
stage = Event[str]("stage")
said_so_far = Stream[str]("said")

for one in (app, sync_app):
    one.queue("narrow", concurrency=10, worker_concurrency=4, partition_concurrency=6)
    one.queue("paced", concurrency=14, rate=Rate(12, per=1), partition_rate=Rate(6, per=1))
    one.queue("leaf", concurrency=9, partition_concurrency=4)

transfer = app.transaction(bank.awaited)(bank.move_awaited)
transfer_in_file = app.transaction(bank.file)(bank.move_in_file)
sync_transfer = sync_app.transaction(bank.blocking)(bank.move_blocking)
sync_transfer_in_file = sync_app.transaction(bank.file)(bank.move_in_file)


class Notes(Ledger):
    """A ledger that the system's memory keeps: a killed process loses nothing of it, and no disk is waited for."""

    def write(self, line: dict[str, Any]) -> None:
        t, at = self.now()
        os.write(self.file, msgspec.json.encode({"t": t, "at": at, **line}) + b"\n")

    def open(self, path: Path, app: Any) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._app = app


ledger, sync_ledger = Notes(), Notes()


def open_ledgers(folder: Path) -> None:
    ledger.open(folder / f"{app.name}.ledger", app)
    sync_ledger.open(folder / f"{sync_app.name}.ledger", sync_app)


# -- async


@app.step
async def act(name: str, ms: int) -> str:
    with ledger.effect(name):
        await asyncio.sleep(ms / 1000)
    return name


@app.step
def act_in_thread(name: str, ms: int) -> str:
    with ledger.effect(name):
        time.sleep(ms / 1000)
    return name


@app.step(retry=Retry(5, on=ConnectionError, delay=0.02))
async def at_last(name: str, attempts: int) -> str:
    with ledger.effect(name):
        if current().attempt < attempts:
            raise ConnectionError(f"attempt {current().attempt}")
    return name


@app.step
async def refuse(name: str) -> str:
    with ledger.effect(name):
        raise ValueError(name)


@app.step(at_most_once=True)
async def shoot(name: str, ms: int) -> str:
    with ledger.effect(name, once=True):
        await asyncio.sleep(ms / 1000)
    return name


@app.schedule(every=1, name="tick", missed="all", catch_up=timedelta(days=1))
@app.workflow(name="tick")
async def tick(due: datetime) -> None:
    await act(f"{current().id} of {due.isoformat()}", 1)


@app.workflow
async def tree(actions: list[Any]) -> list[Any]:
    try:
        return [await interpret(action) for action in actions]
    except asyncio.CancelledError:
        await act(f"{current().id} cleaned", 1)
        raise


async def interpret(action: list[Any]) -> Any:
    kind, *rest = action
    if kind in SIMPLE:
        return await SIMPLE[kind](*rest)
    match kind:
        case "gather":
            return list(await asyncio.gather(*(each(branch) for branch in rest[0])))
        case "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each(branch)) for branch in rest[0]]
            return [task.result() for task in tasks]
        case "race":
            return await race(*rest)
        case _:
            raise AssertionError(f"no such action: {action}")


async def each(actions: list[Any]) -> list[Any]:
    return [await interpret(action) for action in actions]


async def race(names: list[str], ms: list[int]) -> str:
    tasks = [asyncio.create_task(act(name, t)) for name, t in zip(names, ms, strict=True)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return await act(f"{min(task.result() for task in done)} won", 1)


async def fail(name: str) -> str:
    try:
        return await refuse(name)
    except ValueError as error:
        return f"caught {error}"


async def once(name: str, ms: int) -> str:
    try:
        return await shoot(name, ms)
    except StepOutcomeUnknown:
        return "unknown"


async def nap(ms: int) -> str:
    await sleep(ms / 1000)
    return "slept"


async def nothing(ms: int) -> str | None:
    return await recv(never, timeout=ms / 1000)


async def mail(count: int) -> list[str]:
    return [await recv(letters) for _ in range(count)]


async def child(actions: list[Any], how: str) -> list[Any]:
    if how == "call":
        return await tree(actions)
    return await (await tree.start(actions)).result()


@app.workflow
async def listener(count: int, name: str) -> list[str]:
    heard = [await recv(words) for _ in range(count)]
    return [*heard, await act(name, 1)]


async def talk(said: list[str], name: str) -> list[str]:
    handle = await listener.start(len(said), name)
    for word in said:
        await handle.send(word, words)
    return await handle.result()


@app.workflow
async def teller(name: str) -> str:
    await set_event(stage, f"about {name}")
    return await act(name, 5)


async def told(name: str) -> list[str | None]:
    handle = await teller.start(name)
    return [await handle.get_event(stage), await handle.result()]


@app.step
async def speak(name: str, ms: int, count: int) -> str:
    with ledger.effect(name):
        for n in range(count):
            await write_stream(said_so_far, f"{name} {n}")
            await asyncio.sleep(ms / 1000 / count)
    return name


async def say(name: str, ms: int, count: int) -> str:
    await write_stream(said_so_far, f"about {name}")
    return await speak(name, ms, count)


@app.workflow
async def speaker(name: str, count: int) -> str:
    await speak(name, 5, count)
    await close_stream(said_so_far)
    return name


async def heard(name: str, count: int) -> list[str]:
    handle = await speaker.start(name, count)
    return [*[word async for word in handle.read_stream(said_so_far)], await handle.result()]


async def move(name: str, source: str, target: str, cents: int) -> str:
    do = transfer_in_file if bank.is_file() else transfer
    return await do(name, source, target, cents)


async def leaf(actions: list[Any], partition: str, priority: int) -> list[Any]:
    line = tree.options(queue="leaf", partition=partition, priority=priority)
    return await (await line.start(actions)).result()


class Played(Play):
    """A plan whose steps are effects: each call has a name of its own, by its turn."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.calls = 0

    async def step(self, name: str) -> str:
        self.calls += 1
        return await act(f"{self.name}/{self.calls} {name}", len(name))

    async def receive(self, seconds: float) -> str | None:
        return await recv(never, timeout=seconds)


async def drawn(name: str, seed: int) -> str:
    """What nobody wrote; what becomes of it is for asyncio to say, that it is the same after a crash is for us."""
    with contextlib.suppress(Exception):
        await Played(name).do(draw(seed, 3))
    return name


async def late(ms: int) -> str:
    try:
        async with asyncio.timeout(ms / 1000):
            await sleep(3600)
    except TimeoutError:
        return "timed out"
    return "in time"


async def event(value: str) -> str:
    await set_event(stage, value)
    return "set"


async def new(actions: list[Any]) -> None:
    tree.continue_as_new(actions)


async def for_ever() -> None:
    await recv(never)


async def fall(name: str) -> None:
    try:
        await refuse(name)
    except ValueError as error:
        raise RuntimeError(f"fell at {name}") from error


SIMPLE: dict[str, Any] = {
    "step": act, "block": act_in_thread, "retry": at_last, "fail": fail, "once": once, "sleep": nap,
    "nothing": nothing, "mail": mail, "child": child, "talk": talk, "told": told, "late": late, "event": event,
    "say": say, "heard": heard, "move": move, "leaf": leaf, "drawn": drawn,
    "new": new, "for ever": for_ever, "fall": fall,
}  # fmt: skip


# -- sync


@sync_app.step
def sync_act(name: str, ms: int) -> str:
    with sync_ledger.effect(name):
        time.sleep(ms / 1000)
    return name


@sync_app.step
async def act_on_loop(name: str, ms: int) -> str:
    with sync_ledger.effect(name):
        await asyncio.sleep(ms / 1000)
    return name


@sync_app.step(retry=Retry(5, on=ConnectionError, delay=0.02))
def sync_at_last(name: str, attempts: int) -> str:
    with sync_ledger.effect(name):
        if current().attempt < attempts:
            raise ConnectionError(f"attempt {current().attempt}")
    return name


@sync_app.step
def sync_refuse(name: str) -> str:
    with sync_ledger.effect(name):
        raise ValueError(name)


@sync_app.step(at_most_once=True)
def sync_shoot(name: str, ms: int) -> str:
    with sync_ledger.effect(name, once=True):
        time.sleep(ms / 1000)
    return name


@sync_app.step
def sync_speak(name: str, ms: int, count: int) -> str:
    with sync_ledger.effect(name):
        for n in range(count):
            blocking.write_stream(said_so_far, f"{name} {n}")
            time.sleep(ms / 1000 / count)
    return name


@sync_app.schedule("* * * * * *", name="tock", missed="once", overlap="skip")
@sync_app.workflow(name="tock")
def tock(due: datetime) -> None:
    sync_act(f"{current().id} of {due.isoformat()}", 1)


@sync_app.workflow
def sync_tree(actions: list[Any]) -> list[Any]:
    try:
        return [sync_interpret(action) for action in actions]
    except Cancelled:
        sync_act(f"{current().id} cleaned", 1)
        raise


@sync_app.workflow
def sync_listener(count: int, name: str) -> list[str]:
    heard = [blocking.recv(words) for _ in range(count)]
    return [*heard, sync_act(name, 1)]


def sync_interpret(action: list[Any]) -> Any:
    match action:
        case ["step", name, ms]:
            return sync_act(name, ms)
        case ["block", name, ms]:
            return act_on_loop(name, ms)
        case ["retry", name, attempts]:
            return sync_at_last(name, attempts)
        case ["fail", name]:
            try:
                return sync_refuse(name)
            except ValueError as error:
                return f"caught {error}"
        case ["once", name, ms]:
            try:
                return sync_shoot(name, ms)
            except StepOutcomeUnknown:
                return "unknown"
        case ["child", actions, "call"]:
            return sync_tree(actions)
        case ["child", actions, _]:
            return sync_tree.start(actions).result()
        case ["leaf", actions, partition, priority]:
            line = sync_tree.options(queue="leaf", partition=partition, priority=priority)
            return line.start(actions).result()
        case ["talk", said, name]:
            handle = sync_listener.start(len(said), name)
            for word in said:
                handle.send(word, words)
            return handle.result()
        case _:
            return sync_wait(action)


def sync_wait(action: list[Any]) -> Any:
    match action:
        case ["sleep", ms]:
            blocking.sleep(ms / 1000)
            return "slept"
        case ["nothing", ms]:
            return blocking.recv(never, timeout=ms / 1000)
        case ["mail", count]:
            return [blocking.recv(letters) for _ in range(count)]
        case ["event", value]:
            blocking.set_event(stage, value)
            return "set"
        case ["say", name, ms, count]:
            blocking.write_stream(said_so_far, f"about {name}")
            return sync_speak(name, ms, count)
        case ["move", name, source, target, cents]:
            do = sync_transfer_in_file if bank.is_file() else sync_transfer
            return do(name, source, target, cents)
        case ["new", actions]:
            return sync_tree.continue_as_new(actions)
        case ["for ever"]:
            return blocking.recv(never)
        case ["fall", name]:
            try:
                return sync_refuse(name)
            except ValueError as error:
                raise RuntimeError(f"fell at {name}") from error
        case _:
            raise AssertionError(f"no such action: {action}")
