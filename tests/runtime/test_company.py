"""Who is about to write: waited for a moment, if it is one or two, and if waiting has been worth it."""

from __future__ import annotations

import asyncio

import pytest

from perdure.client import company as module
from perdure.client.company import FEW, PASSES_MIN, Company


@pytest.fixture
def flushes() -> list[str]:
    return []


def held(company: Company, flushes: list[str]) -> bool:
    return company.hold(lambda: flushes.append("now"))


async def in_vain(flushes: list[str]) -> None:
    """Nobody comes back: the wait ends by its time, which a test makes nothing."""
    while not flushes:  # noqa: ASYNC110  turns of the loop
        await asyncio.sleep(0)
    flushes.clear()


async def test_with_nobody_out_there_is_nothing_to_wait_for(flushes: list[str]) -> None:
    assert not held(Company(asyncio.get_running_loop()), flushes)


async def test_the_commit_leaves_as_soon_as_all_are_back(flushes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 3600)
    company = Company(asyncio.get_running_loop())
    company.let_go()
    company.let_go()
    assert held(company, flushes)
    company.back()
    await asyncio.sleep(0)
    assert flushes == []
    company.back()
    assert flushes == [], "others may come in this turn"
    await asyncio.sleep(0)
    assert flushes == ["now"]
    company.back()  # who was not counted does no harm
    await asyncio.sleep(0)
    assert flushes == ["now"]


async def test_many_are_not_waited_for(flushes: list[str]) -> None:
    company = Company(asyncio.get_running_loop())
    for _ in range(FEW + 1):
        company.let_go()
    assert not held(company, flushes)


async def test_who_is_late_is_no_longer_expected(flushes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those who never come back, such as bodies that were put away, would count for ever."""
    company = Company(asyncio.get_running_loop())
    for _ in range(FEW + 1):
        company.let_go()
    monkeypatch.setattr(module, "LATE_SECONDS", -1)
    assert not held(company, flushes)
    monkeypatch.setattr(module, "LATE_SECONDS", 3600)
    company.let_go()
    assert held(company, flushes)
    company.back()
    await asyncio.sleep(0)
    assert flushes == ["now"]


async def test_after_a_wait_in_vain_it_does_not_wait_for_a_while(
    flushes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0)
    company = Company(asyncio.get_running_loop())
    passed: list[int] = []
    for _ in range(3):
        company.let_go()
        assert held(company, flushes)
        await in_vain(flushes)
        passes = 0
        company.let_go()
        while not held(company, flushes):
            passes += 1
        passed.append(passes)
        company.back()
        await asyncio.sleep(0)
        assert flushes.pop() == "now"
        if len(passed) == 1:
            assert passes == PASSES_MIN
    assert passed == [PASSES_MIN] * 3  # whoever came back made waiting worth it again


async def test_each_wait_in_vain_makes_it_more_patient(flushes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0)
    company = Company(asyncio.get_running_loop())
    passed: list[int] = []
    for _ in range(4):
        passes = 0
        company.let_go()
        while not held(company, flushes):
            passes += 1
        passed.append(passes)
        await in_vain(flushes)
    assert passed == [0, PASSES_MIN, 2 * PASSES_MIN, 4 * PASSES_MIN]
