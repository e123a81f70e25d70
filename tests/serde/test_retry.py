"""Retry and durations: what is waited, what is wanted, and the words of each refusal."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DefinitionError
from perdure.model.durations import DURATION_US_MAX, to_us
from perdure.policy.retry import Retry


@pytest.mark.parametrize(
    ("duration", "us"),
    [
        (0, 0),
        (1, 1_000_000),
        (1.5, 1_500_000),
        (1.1, 1_100_000),
        (0.000003, 3),
        (0.0000001, 1),
        (timedelta(minutes=1), 60_000_000),
        (timedelta(microseconds=1), 1),
        (timedelta(0), 0),
        (timedelta(days=36_600), DURATION_US_MAX),
    ],
)
def test_durations(duration: Any, us: int) -> None:
    assert to_us(duration, "delay") == us


@given(st.integers(0, DURATION_US_MAX))
def test_timedeltas_are_exact(us: int) -> None:
    assert to_us(timedelta(microseconds=us), "delay") == us


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (-1, "delay=-1 is negative"),
        (timedelta(seconds=-1), "is negative"),
        (math.nan, "delay=nan is not a duration"),
        (math.inf, "delay=inf is not a duration"),
        ("5", "delay='5' is not a duration; give seconds (1.5) or a timedelta."),
        (None, "delay=None is not a duration"),
        (True, "delay=True is not a duration"),
        (1e300, "more than a century"),
        (10**400, "more than a century"),
        (timedelta.max, "more than a century; a number is seconds"),
    ],
)
def test_refused_durations_show_the_value(duration: Any, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        to_us(duration, "delay")
    assert words in str(caught.value)


def test_waits_grow_to_the_bound() -> None:
    retry = Retry(attempts=10, delay=1, factor=2, max_delay=10)
    assert [retry.wait_us(n) for n in range(1, 7)] == [
        1_000_000,
        2_000_000,
        4_000_000,
        8_000_000,
        10_000_000,
        10_000_000,
    ]
    assert Retry(delay=0).wait_us(1_000_000) == 0
    assert Retry(delay=timedelta(seconds=2), factor=1).wait_us(50) == 2_000_000
    assert Retry(attempts=1_000_000, factor=1000).wait_us(999_999) == 3_600_000_000
    assert Retry(delay=20, max_delay=10).wait_us(1) == 10_000_000
    with pytest.raises(ValueError, match="count from 1"):
        retry.wait_us(0)


@given(st.floats(0, 1e6), st.floats(1, 1000), st.floats(0, 1e6), st.integers(1, 10_000))
def test_waits_never_shrink_and_never_pass_the_bound(delay: float, factor: float, bound: float, attempt: int) -> None:
    retry = Retry(attempts=20_000, delay=delay, factor=factor, max_delay=bound)
    assert 0 <= retry.wait_us(attempt) <= retry.wait_us(attempt + 1) <= to_us(bound, "bound")


def broken(error: Exception) -> bool:
    raise RuntimeError


@pytest.mark.parametrize(
    ("on", "error", "wanted"),
    [
        (Exception, ValueError(), True),
        (ConnectionError, ConnectionResetError(), True),
        (ConnectionError, ValueError(), False),
        ((KeyError, ValueError), ValueError(), True),
        ((KeyError, ValueError), OSError(), False),
        (lambda error: str(error) == "again", ValueError("again"), True),
        (lambda error: str(error) == "again", ValueError("no"), False),
        (broken, ValueError(), False),
        (Exception, asyncio.CancelledError(), False),
        (lambda _: True, KeyboardInterrupt(), False),
    ],
)
def test_wants(on: Any, error: BaseException, wanted: bool) -> None:
    retry = Retry(attempts=3, on=on)
    assert [retry.wants(error, n) for n in (1, 2, 3, 4)] == [wanted, wanted, False, False]
    assert not Retry(attempts=1, on=on).wants(error, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attempts": 0}, "Retry(attempts=0) is out of range; give 1 (never retry)"),
        ({"attempts": 2.5}, "Retry(attempts=2.5) is not a whole number"),
        ({"attempts": True}, "Retry(attempts=True)"),
        ({"attempts": 10**9}, "out of range"),
        ({"on": KeyboardInterrupt}, "Retry(on=KeyboardInterrupt) is not a subclass of Exception"),
        ({"on": ()}, "at least one"),
        ({"on": (ValueError, "x")}, "'x'"),
        ({"on": "ValueError"}, "Retry(on='ValueError') is neither"),
        ({"on": None}, "Retry(on=None) is neither"),
        ({"factor": 0.5}, "Retry(factor=0.5) is out of range"),
        ({"factor": math.nan}, "Retry(factor=nan)"),
        ({"factor": "2"}, "Retry(factor='2') is not a number"),
        ({"delay": -1}, "Retry(delay)=-1 is negative"),
        ({"max_delay": math.inf}, "Retry(max_delay)=inf"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Retry(**options)
    assert words in str(caught.value)


def test_it_is_a_frozen_value() -> None:
    retry = Retry(5, on=(ValueError,), delay=timedelta(seconds=1))
    assert repr(retry) == (
        "Retry(attempts=5, on=(ValueError,), delay=datetime.timedelta(seconds=1), factor=2, max_delay=3600)"
    )
    assert retry == Retry(5, on=(ValueError,), delay=1.0)
    assert hash(retry) == hash(Retry(5, on=(ValueError,), delay=1.0))
    assert retry != Retry(4)
    assert retry != 5
    assert pickle.loads(pickle.dumps(retry)) == retry
    assert copy.copy(retry) == retry
    for act in (lambda: setattr(retry, "attempts", 1), lambda: delattr(retry, "on")):
        with pytest.raises(AttributeError, match="frozen"):
            act()
