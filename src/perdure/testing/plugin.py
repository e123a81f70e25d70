"""The pytest plugin: ``@pytest.mark.perdure_crash_everywhere`` on an async test that takes a harness as a fixture.

>>> # @pytest.fixture
>>> # async def h() -> AsyncIterator[Harness]:
>>> #     async with harness(shop) as h:
>>> #         yield h
>>> #
>>> # @pytest.mark.perdure_crash_everywhere
>>> # async def test_charged_once(h: Harness) -> None: ...

Works with whatever runs async tests (pytest-asyncio, anyio). Other fixtures are made once and shared by all the runs.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from perdure.testing.crash_everywhere import crash_everywhere
from perdure.testing.environment import Harness

MARK = "perdure_crash_everywhere"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{MARK}: run the test again with a crash, a lost answer and trouble at every write of its workflows"
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Wrap marked tests."""
    if item.get_closest_marker(MARK) is None or not isinstance(item, pytest.Function):
        return
    test = item.obj
    if not inspect.iscoroutinefunction(test):
        raise pytest.UsageError(f"{item.nodeid}: {MARK} is for async tests; this one is not")

    @functools.wraps(test)
    async def everywhere(*args: Any, **kwargs: Any) -> None:
        harnesses = [value for value in (*args, *kwargs.values()) if isinstance(value, Harness)]
        if len(harnesses) != 1:
            pytest.fail(
                f"{MARK} needs exactly one harness among the test's fixtures; found {len(harnesses)}", pytrace=False
            )
        tried = await crash_everywhere(lambda: test(*args, **kwargs), harnesses[0])
        item.add_report_section("call", "perdure", f"{tried.runs} runs with a crash at one of {tried.points} writes")

    item.obj = everywhere
