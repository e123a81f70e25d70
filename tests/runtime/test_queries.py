"""``client.list`` and ``client.count`` on both faces: queries, orders, limits, all runs, groups."""

from __future__ import annotations

import pytest

import perdure.sync
from perdure import App, Count, Group
from perdure.errors import QueryError


def shop_of(app: App) -> None:
    @app.workflow(name="flow")
    async def flow(n: int) -> int:
        if n < 0:
            raise ValueError(n)
        return n

    @app.workflow(name="twice")
    async def twice(n: int) -> int:
        if n == 1:
            twice.continue_as_new(2)
        return n

    app.flow, app.twice = flow, twice  # type: ignore[attr-defined]


async def test_a_client_lists_and_counts_what_a_query_names(app: App) -> None:
    shop_of(app)
    async with app:
        for n in range(3):
            await app.flow.options(id=f"f{n}", attributes={"n": n, "even": n % 2 == 0})(n)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="-1"):
            await app.flow.options(id="bad")(-1)  # type: ignore[attr-defined]
        await app.twice.options(id="t")(1)  # type: ignore[attr-defined]

        async def ids(query: str, **how: object) -> list[str]:
            return [f"{info.id}#{info.run}" async for info in app.client.list(query, **how)]  # type: ignore[arg-type]

        assert await ids("type = flow AND attributes.n >= 1 ORDER BY id") == ["f1#1", "f2#1"]
        assert await ids("ORDER BY id DESC", limit=2) == ["t#2", "f2#1"]
        assert await ids("", limit=0) == []
        assert await ids("type = twice") == ["t#2"]
        assert await ids("type = twice", all_runs=True) == ["t#2", "t#1"]
        assert await ids("error = ValueError AND status = failed") == ["bad#1"]
        assert await ids("created > now - 1h AND duration < 1h AND NOT id STARTS_WITH 'f'") == ["t#2", "bad#1"]

        count = await app.client.count("type = flow")
        assert count == 4
        assert count.groups == ()
        assert await app.client.count(all_runs=True) == 6
        by = await app.client.count("GROUP BY status, attributes.even")
        assert isinstance(by, Count)
        assert by == 5
        assert by.groups == (
            Group({"status": "completed", "attributes.even": True}, 2),
            Group({"status": "completed", "attributes.even": False}, 1),
            Group({"status": "completed", "attributes.even": None}, 1),
            Group({"status": "failed", "attributes.even": None}, 1),
        )
        with pytest.raises(QueryError, match="no field 'typo'"):
            await app.client.count("typo = flow")
        with pytest.raises(QueryError, match="GROUP BY is for a count"):
            await ids("GROUP BY status")


def test_the_blocking_face_counts_too(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow(name="flow")
    def flow(n: int) -> int:
        return n

    with sync_app:
        for n in range(3):
            flow.options(id=f"f{n}")(n)
        assert [info.id for info in sync_app.client.list("id != f1 ORDER BY id", limit=5)] == ["f0", "f2"]
        assert [info.id for info in sync_app.client.list(limit=1)] == ["f2"]
        assert sync_app.client.count("status = completed") == 3
        assert sync_app.client.count("GROUP BY type").groups == (Group({"type": "flow"}, 3),)
