"""How many are asked for: what no database counts to is refused where it is given, in words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import App, Rate
from perdure.errors import DefinitionError, Misuse

NONE_OF_IT = [-1, 2**31, 10**30, 10**5000, True, "5", 2.5, timedelta(1)]


@pytest.mark.parametrize("given", NONE_OF_IT, ids=lambda given: repr(given)[:20] if given != 10**5000 else "huge")
async def test_what_no_database_counts_to_is_refused(app: App, given: Any) -> None:
    hourly = app.schedule("0 * * * *", name="hourly")

    @hourly
    @app.workflow
    async def work() -> None: ...

    async with app.connect():
        client = app.client
        asked = [
            ("limit", lambda: client.batches(limit=given)),
            ("limit", lambda: client.schedule("hourly").firings(limit=given)),
            ("limit", lambda: anext(aiter(client.list(limit=given)))),
        ]
        for what, ask in asked:
            with pytest.raises(Misuse, match=rf"^{what}=.*: give a whole number from [01] to 2147483647"):
                await ask()
        with pytest.raises(Misuse, match=r"^offset=.*: give a whole number from 0 to 2147483647"):
            client.handle("a").read_stream("words", offset=given)
        with pytest.raises(DefinitionError, match=r"^concurrency=.* is no limit"):
            await client.set_queue("q", concurrency=given)
    with pytest.raises(DefinitionError, match="is no rate: give a whole number from 1 to 2147483647"):
        Rate(given, per=60)


async def test_the_most_that_can_be_asked_for_is_answered(app: App) -> None:
    async with app.connect():
        assert await app.client.batches(limit=2**31 - 1) == []
        assert [one async for one in app.client.list(limit=2**31 - 1)] == []
        assert [one async for one in app.client.list(limit=0)] == []
        await app.client.set_queue("q", concurrency=2**31 - 1, rate=Rate(2**31 - 1, per=1))
        [queue] = await app.client.queues()
        assert queue.concurrency == 2**31 - 1
