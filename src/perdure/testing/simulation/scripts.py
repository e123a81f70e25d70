"""What the clients of a world ask for: drawn from the seed, a few workflows of different kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perdure.testing.simulation import asking, blocking, programs, queueing
from perdure.testing.simulation.bank import transfers
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.workload import Client

Script = Callable[[Client], Awaitable[None]]


def scripts(chance: Any, kinds: Sequence[str] = (), *, judged: bool = False) -> list[tuple[Script, float]]:
    """(script, delay in seconds before it begins), of some kinds or of all; ``judged``: also of those with a policy."""
    known = (*_KINDS, _judged, _judged, _judged) if judged else _KINDS
    make = [kind for kind in (*known, *_NAMED) if (kind.__name__[1:] in kinds if kinds else kind in known)]
    made: list[tuple[Script, float]] = []
    for n in range(chance.randint(3, 6)):
        script = chance.choice(make)(f"w{n}", chance)
        made.append((script, chance.uniform(0.0, 3.0)))
        if chance.random() < 0.3:  # the same again, from another client
            sometimes("two clients started one id at once")
            made.append((script, made[-1][1] + chance.choice((0.0, 0.0005, 0.5))))
    return made


def more(chance: Any) -> list[tuple[Script, float]]:
    """What few worlds have beside: of queues and schedules. Of a chance of its own: the others stay as they are."""
    if chance.random() >= queueing.SHARE:
        return []
    return [(chance.choice(queueing.KINDS)("q", chance), chance.uniform(0.0, 1.0))]


def _plain(name: str, id: str, *args: Any, **options: Any) -> Script:
    async def script(client: Client) -> None:
        handle = await client.start(getattr(client.app, name), id, *args, **options)
        await client.result(handle)

    return script


def _chain(id: str, chance: Any) -> Script:
    return _plain("chain", id, chance.randint(1, 4))


def _delayed(id: str, chance: Any) -> Script:
    return _plain("chain", id, 2, delay=chance.uniform(0.1, 2.0))


def _family(id: str, chance: Any) -> Script:
    return _plain("family", id, chance.randint(1, 3))


def _race(id: str, chance: Any) -> Script:
    return _plain("race", id, chance.randint(1, 3))


def _sleeper(id: str, chance: Any) -> Script:
    return _plain("sleeper", id, chance.choice((0.01, 0.5, 2.5)))


def _looper(id: str, chance: Any) -> Script:
    return _plain("looper", id, chance.randint(1, 3))


def _group(id: str, chance: Any) -> Script:
    return _plain("group", id, chance.randint(1, 3))


def _stubborn(id: str, chance: Any) -> Script:
    return _plain("stubborn", id, chance.randint(1, 4))


def _judged(id: str, chance: Any) -> Script:
    return _plain("judged", id, chance.randint(2, 4))


def _hurried(id: str, chance: Any) -> Script:
    return _plain("hurried", id, 5.0, timeout=chance.choice((0.3, 1.0, 3.0)))


def _cancelled(id: str, chance: Any) -> Script:
    name, args = chance.choice((("chain", (4,)), ("sleeper", (5.0,)), ("family", (2,)), ("hurried", (3.0,))))
    options = {"delay": 1.0} if chance.random() < 0.2 else {}
    wait = chance.choice((0.0, 0.05, 0.5, 2.0))

    async def script(client: Client) -> None:
        handle = await client.start(getattr(client.app, name), id, *args, **options)
        await asyncio.sleep(wait)
        await client.cancel(handle)
        await client.result(handle)

    return script


def _mailbox(id: str, chance: Any) -> Script:
    count = chance.randint(1, 4)
    waits = [chance.choice((0.0, 0.0, 0.1, 1.0)) for _ in range(count)]
    keyed = chance.random() < 0.5

    async def script(client: Client) -> None:
        handle = await client.start(client.app.mailbox, id, count)
        for n, wait in enumerate(waits):
            await asyncio.sleep(wait)
            await client.send(handle, n, f"{n}" if keyed else None)
        await client.read(handle)
        await client.result(handle)
        await client.send(handle, 99)  # too late

    return script


def _letters(id: str, chance: Any) -> Script:
    count = chance.randint(1, 3)
    nobody = chance.random() < 0.2

    async def script(client: Client) -> None:
        dest = f"{id}-box"
        if not nobody:
            await client.start(client.app.mailbox, dest, count)
        handle = await client.start(client.app.sender, id, dest, count)
        await client.result(handle)

    return script


def _teller(id: str, chance: Any) -> Script:
    rounds, offset = chance.randint(0, 2), chance.randint(0, 3)
    listened, cancelled = chance.random() < 0.5, chance.random() < 0.2
    wait = chance.choice((0.0, 0.05, 1.0))

    async def script(client: Client) -> None:
        if listened:
            handle = await client.start(client.app.listener, f"{id}-listener", id, rounds)
        else:
            handle = await client.start(client.app.teller, id, rounds)
        await asyncio.sleep(wait)
        await client.read_stream(client.app.teller.handle(id), offset)
        if cancelled:
            await client.cancel(handle)
        await client.result(handle)

    return script


def _paused(id: str, chance: Any) -> Script:
    name, args = chance.choice(
        (("chain", (4,)), ("sleeper", (2.5,)), ("family", (2,)), ("looper", (2,)), ("race", (3,)))
    )
    options = {"delay": 1.0} if chance.random() < 0.2 else {}
    waits = chance.choice((0.0, 0.05, 0.5, 2.0)), chance.choice((0.0, 0.1, 0.5))

    async def script(client: Client) -> None:
        handle = await client.start(getattr(client.app, name), id, *args, **options)
        await asyncio.sleep(waits[0])
        await client.pause(handle)
        await asyncio.sleep(waits[1])
        await client.unpause(handle)

    return script


def _moved(id: str, chance: Any) -> Script:
    """An operator pins it to the version that it has, and takes that back."""
    name, args = chance.choice((("chain", (4,)), ("sleeper", (2.5,)), ("family", (2,)), ("looper", (2,))))
    waits = chance.choice((0.0, 0.05, 0.5, 2.0)), chance.choice((0.0, 0.1, 0.5))

    async def script(client: Client) -> None:
        handle = await client.start(getattr(client.app, name), id, *args)
        await asyncio.sleep(waits[0])
        await client.pin(handle)
        await asyncio.sleep(waits[1])
        await client.unpin(handle)

    return script


def _blocking(id: str, chance: Any) -> Script:
    return blocking.scripts(id, chance)


def _asker(id: str, chance: Any) -> Script:
    return asking.scripts(id, chance)


def _program(id: str, chance: Any) -> Script:
    return programs.scripts(id, chance)


def _transfers(id: str, chance: Any) -> Script:
    return transfers(id, chance)


_KINDS: tuple[Callable[[str, Any], Script], ...] = (
    _chain, _delayed, _stubborn, _family, _race, _sleeper, _looper, _group, _hurried, _cancelled, _mailbox, _letters,
)  # fmt: skip
# Drawn where they are asked for by name: the worlds of the others stay as they are.
_NAMED = (_transfers, _teller, _paused, _moved, _blocking, _asker, _program, *queueing.NAMED)
KINDS = frozenset(make.__name__[1:] for make in (*_KINDS, _judged, *_NAMED))  # by which they are asked for
