"""A program: plays plans on the bare loop and prints, for each, a digest of the calls that it made.

``python -m tests.runtime.loop_plans > tests/runtime/loop_plans.txt`` makes the file that ``test_loop_plans.py`` reads.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from perdure.testing.plans import draw
from perdure.testing.play import Play
from tests.runtime.loop_driver import Driver, call

PLANS = 1000


class LoopPlay(Play):
    """A plan whose leaves are calls of the driver."""

    async def step(self, name: str) -> str:
        await call(name)
        return "done"

    async def receive(self, seconds: float) -> Any:
        return await call(f"receive {seconds}")


def lived(seed: int) -> list[Any]:
    """Which calls the body of one plan made and which timers it armed, after each outcome; and its own log.

    Outcomes and timers come in an order of chance, as in a history.
    """
    chance = random.Random(f"order {seed}")
    driver = Driver()
    play = LoopPlay()
    made: list[Any] = []

    def note() -> None:
        made.append((len(driver.calls), [(timer.path, timer.deadline) for timer in driver.timers], len(play.log)))

    main = driver.start(play.do, draw(seed))
    note()
    while not main.done() and (driver.waiting or driver.timers):
        if driver.waiting and (not driver.timers or chance.random() < 0.7):
            driver.waiting.insert(0, driver.waiting.pop(chance.randrange(len(driver.waiting))))
            driver.deliver()
        else:
            driver.fire()
        note()
    made += [*driver.calls, *play.log]
    driver.loop.unwind()
    return made


def digest(seed: int) -> str:
    return hashlib.blake2b(repr(lived(seed)).encode(), digest_size=5).hexdigest()


if __name__ == "__main__":
    for number in range(PLANS):
        print(number, digest(number))
