"""The workflows of the chaos run: interpreters of the trees of ``plan``, one of each face.

Every effect is one line in a ledger outside the database, written by one system call by the step itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import perdure.sync as blocking
from perdure import App, Event, Retry, Topic, current, recv, set_event, sleep
from perdure.errors import Cancelled, StepOutcomeUnknown
from perdure.runtime.context import STEP

app = App("chaos")
sync_app = blocking.App("chaos-sync")
letters = Topic[str]("letters")
words = Topic[str]("words")
never = Topic[str]("never")
stage = Event[str]("stage")
ledger: list[int] = []  # the file that effects are written to


def effect(name: str) -> str:
    """Have an effect that everybody can see, outside the database."""
    now, step = current(), STEP.get()
    assert step is not None
    line = {
        "effect": name, "key": now.idempotency_key, "attempt": now.attempt, "id": now.id, "run": now.run,
        "path": step.path, "pid": os.getpid(), "at": time.time(),
    }  # fmt: skip
    os.write(ledger[0], f"{json.dumps(line)}\n".encode())
    return name


# -- async


@app.step
async def act(name: str, ms: int) -> str:
    await asyncio.sleep(ms / 2000)
    effect(name)
    await asyncio.sleep(ms / 2000)
    return name


@app.step
def act_in_thread(name: str, ms: int) -> str:
    time.sleep(ms / 2000)
    effect(name)
    time.sleep(ms / 2000)
    return name


@app.step(retry=Retry(5, on=ConnectionError, delay=0.02))
async def at_last(name: str, attempts: int) -> str:
    effect(name)
    if current().attempt < attempts:
        raise ConnectionError(f"attempt {current().attempt}")
    return name


@app.step
async def refuse(name: str) -> str:
    effect(name)
    raise ValueError(name)


@app.step(at_most_once=True)
async def shoot(name: str, ms: int) -> str:
    effect(name)
    await asyncio.sleep(ms / 1000)
    return name


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
    return await act(f"{sorted(task.result() for task in done)[0]} won", 1)


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
    "new": new, "for ever": for_ever, "fall": fall,
}  # fmt: skip


# -- sync


@sync_app.step
def sync_act(name: str, ms: int) -> str:
    time.sleep(ms / 2000)
    effect(name)
    time.sleep(ms / 2000)
    return name


@sync_app.step
async def act_on_loop(name: str, ms: int) -> str:
    await asyncio.sleep(ms / 2000)
    effect(name)
    await asyncio.sleep(ms / 2000)
    return name


@sync_app.step(retry=Retry(5, on=ConnectionError, delay=0.02))
def sync_at_last(name: str, attempts: int) -> str:
    effect(name)
    if current().attempt < attempts:
        raise ConnectionError(f"attempt {current().attempt}")
    return name


@sync_app.step
def sync_refuse(name: str) -> str:
    effect(name)
    raise ValueError(name)


@sync_app.step(at_most_once=True)
def sync_shoot(name: str, ms: int) -> str:
    effect(name)
    time.sleep(ms / 1000)
    return name


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
