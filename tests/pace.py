"""How much of the tests fits into the minutes that are promised, on this machine: five of ``make test``, fifteen of CI.

The same commit takes 787 seconds of CI on one machine and 1,815 on another, idle, whose memory is slow (1,262 with a
share of 63%, which was meant for fewer: what promises a number takes 900 core-seconds on the first). So the machine
is measured at the start, by what most tests do: the engine, in simulated worlds. Where all of the tests do not fit,
some are left out by chance, others each time, two of three at most; never those of CI that promise a number. What comes
of it is printed.
``PERDURE_TEST_SHARE=1`` runs all of them, ``make crashes`` everything.
"""

from __future__ import annotations

import os
import random
import time
from typing import NamedTuple

import pytest

from tests.effort import EFFORT

SHARE = "PERDURE_TEST_SHARE"
LEAST = 0.33  # fewer would say little: there the promised time is exceeded
WORLDS = range(1, 13)
PROMISED_ON = 98.0  # virtual seconds for one of processor time, on the machine on which the minutes were promised


class Budget(NamedTuple):
    """Processor seconds. ``seconds``: of two cores in the promised time; the others on the machine of the promise."""

    seconds: float
    always: float  # set-up and collection; in CI also all that is no test, and the tests that promise a number
    chosen: float  # the tests of which chance takes a part, if it takes all

    def share(self, slowness: float) -> float:
        """The part of them that fits."""
        left = self.seconds - self.always * slowness
        return round(max(LEAST, min(1.0, left / (self.chosen * slowness))), 2)


BUDGETS = {"some": Budget(530, 123, 382), "ci": Budget(1740, 900, 333)}  # who runs everything takes as long as it takes


def slowness() -> float:
    """How many times slower than the machine of the promise this one is, by processor time: load counts little."""
    from perdure.testing.simulation import simulate  # it imports all of the engine, and few runs need it

    simulate(WORLDS[0])  # what is made once
    began = time.process_time()
    virtual = sum(simulate(seed).virtual for seed in WORLDS)
    return PROMISED_ON * (time.process_time() - began) / virtual


def measure() -> None:
    """Before the workers are started, which are told by the environment: they choose the same."""
    budget = BUDGETS.get(EFFORT)
    if budget is not None and SHARE not in os.environ:
        os.environ[SHARE] = str(budget.share(slowness()))


def share() -> float:
    """What was measured, or is asked for."""
    return float(os.environ.get(SHARE, "1"))


def beyond(items: list[pytest.Item], seed: str) -> set[pytest.Item]:
    """Those that are left out."""
    return set(random.Random(f"{seed} share").sample(items, len(items) - round(len(items) * share())))
