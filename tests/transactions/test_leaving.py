"""A session that cannot be left, since its server is gone without a word, keeps nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from perdure import App
from perdure.sessions import find

pytestmark = pytest.mark.postgres


class Deaf(asyncpg.Connection):  # type: ignore[misc]
    """Its server does not answer to goodbyes."""

    async def close(self, *, timeout: float | None = None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.terminate()


async def test_what_the_body_raised_counts_and_the_app_closes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "LEAVE_SECONDS", 0.05)
    app: Any = App("shop", database=postgres_url)

    @app.transaction(lambda: asyncpg.connect(postgres_url, connection_class=Deaf))
    async def pay(db: Any, cents: int) -> int:
        if cents < 0:
            raise ValueError(f"{cents} cents")
        return int(await db.fetchval("select $1::int", cents))

    @app.workflow
    async def order(cents: int) -> int:
        return int(await pay(cents))

    async with app:
        assert await order(5) == 5
        with pytest.raises(ValueError, match="-1 cents"):
            await order(-1)


async def test_a_body_that_hangs_is_left_when_the_app_closes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "LEAVE_SECONDS", 0.05)
    app: Any = App("shop", database=postgres_url)
    begun = asyncio.Event()

    @app.transaction(lambda: asyncpg.connect(postgres_url, connection_class=Deaf), timeout=0.2)
    async def pay(_db: Any) -> None:
        monkeypatch.setattr("perdure.sessions.asyncpg.Asyncpg.rollback", hang)
        begun.set()
        await asyncio.Event().wait()

    @app.workflow
    async def order() -> None:
        await pay()

    async with app:
        handle = await order.start()
        await begun.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle.result(), 5)


async def hang(_session: Any) -> None:
    await asyncio.Event().wait()
