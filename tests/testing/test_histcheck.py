from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.histcheck import check
from tests.testing.histcheck_support import Shop

# What an ordinary day has no case of: deaths, moves, decisions.
NOT_SEEN = {"I9", "I24", "I47", "I52", "I57", "I59", "I68"}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


async def test_a_day_in_peace_breaks_no_invariant(database: str, tmp_path: Path) -> None:
    shop = Shop(database, tmp_path)
    await shop.day()
    shop.faults.heal()
    verdict = check(await shop.evidence())
    assert verdict.good, str(verdict)
    assert {number for number, cases in verdict.looked.items() if not cases} <= NOT_SEEN
