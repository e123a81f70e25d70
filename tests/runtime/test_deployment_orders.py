"""Orders of deployments through the client: said twice, refused, at once, with lost answers. On both stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client
from perdure.errors import DefinitionError, DeploymentConflict, LostAnswer, NotDurable, VersionNotFound
from tests.runtime.releases import Replica
from tests.runtime.support import executor


async def test_each_order_said_twice_is_done_once_and_says_so(replica: Replica) -> None:
    app = await replica("v1")
    await replica("v2")
    to = app.client.deployment
    orders = [
        lambda: to.set_ramping_version("v2", 5),
        lambda: to.set_current_version("v2"),
        lambda: to.set_ramping_version("v1", 5),
        lambda: to.set_ramping_version("v1", 0),
        lambda: to.update_metadata("v1", {"a": 1}),
        lambda: to.update_metadata("v1", remove=["a"]),
        lambda: to.set_ramping_version("v1", 7),
        to.unset_ramping_version,
    ]
    for n, order in enumerate(orders):
        first, second = await order(), await order()
        assert (first.changed, second.changed) == (True, False), n
        assert first.revision == second.revision == n + 2
        assert second.message.startswith("nothing to do: ")
        assert f"(revision {n + 2})" in second.message


@pytest.mark.parametrize(
    ("order", "error", "said"),
    [
        (lambda to: to.set_current_version("v9"), VersionNotFound, "'v9' of shop was never launched.*--allow-no-exec"),
        (lambda to: to.set_current_version("v0"), DeploymentConflict, "no live executor runs version v0.*--allow-no"),
        (lambda to: to.set_ramping_version("v1", 5), DeploymentConflict, "v1 of shop cannot ramp: it is the current"),
        (lambda to: to.set_ramping_version("v22", 0), VersionNotFound, "no version 'v22'; it has: v1, v0"),
        (lambda to: to.set_current_version("v0", revision=1), DeploymentConflict, r"it is at revision 2 \("),
        (lambda to: to.update_metadata("v9", {"a": 1}), VersionNotFound, "has no version 'v9'"),
        (lambda to: to.describe_version("v9"), VersionNotFound, "has no version 'v9'; it has: v1, v0"),
        (lambda to: to.delete_version("v9"), VersionNotFound, "has no version 'v9'"),
        (lambda to: to.delete_version("v1"), DeploymentConflict, "it is the current one.*set-current-version V"),
        (lambda to: to.set_ramping_version("v1", 101), DefinitionError, "percentage=101 is no share of new work"),
        (lambda to: to.set_ramping_version("v1", -0.1), DefinitionError, "from 0 to 100"),
        (lambda to: to.set_ramping_version("v1", float("nan")), DefinitionError, "percentage=nan"),
        (lambda to: to.set_ramping_version("v1", True), DefinitionError, "percentage=True"),
        (lambda to: to.set_current_version(""), DefinitionError, "'' is no version"),
        (lambda to: to.set_current_version("a\nb"), DefinitionError, "is no version"),
        (lambda to: to.update_metadata("v1", {"a": object()}), DefinitionError, "are no JSON"),
        (lambda to: to.update_metadata("v1", {1: "a"}), DefinitionError, "are not names with values"),
        (lambda to: to.update_metadata("v1", {"a": "b\0"}), DefinitionError, "without NUL"),
        (lambda to: to.update_metadata("v1", {"a": "b" * 70_000}), DefinitionError, "cannot be kept: up to 64000"),
    ],
)  # fmt: skip
async def test_what_is_refused_says_why_and_changes_nothing(
    replica: Replica, order: Any, error: type[Exception], said: str
) -> None:
    await (await replica("v0")).close()
    app = await replica("v1", rollout="auto")
    before = await app.client.deployment.describe()
    with pytest.raises(error, match=said):
        await order(app.client.deployment)
    assert await app.client.deployment.describe() == before


async def test_before_any_launch_there_is_no_deployment(database: str) -> None:
    async with Client(database, app="shop") as client:
        for ask in (
            client.deployment.describe,
            client.deployment.list,
            lambda: client.deployment.set_current_version("v1"),
        ):
            with pytest.raises(VersionNotFound, match="no version of app 'shop' was ever launched"):
                await ask()


async def test_several_operators_at_once_are_answered_one_by_one(replica: Replica, database: str) -> None:
    app = await replica("v1")
    names = [f"v{n}" for n in range(2, 6)]
    for name in names:
        await replica(name)
    clients = [Client(database, app="shop") for _ in names]
    for client in clients:
        await client.open()
    try:
        same = await asyncio.gather(*(client.deployment.set_current_version("v2") for client in clients))
        assert sorted(one.changed for one in same) == [False, False, False, True]
        revision = same[0].revision
        each = await asyncio.gather(
            *(
                client.deployment.set_current_version(name, revision=revision)
                for client, name in zip(clients, ["v1", *names[1:]], strict=True)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(one, DeploymentConflict) for one in each) == 3
        info = await app.client.deployment.describe()
        assert info.revision == revision + 1
        assert info.changes[0].current == info.current
    finally:
        for client in clients:
            await client.close()


@pytest.mark.parametrize("done", [True, False])
async def test_an_order_whose_answer_is_lost_is_given_again(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """Whether it was carried out or not: with a revision too, it is done once and answered so."""
    app = await replica("v1")
    await replica("v2")
    store = executor(app).line.store
    real, tries = store.change_deployment, 0

    async def lost(*args: Any, **how: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            if done:
                await real(*args, **how)
            raise LostAnswer("the connection broke")
        return await real(*args, **how)

    monkeypatch.setattr(store, "change_deployment", lost)
    answer = await app.client.deployment.set_current_version("v2", revision=1)
    assert (answer.changed, answer.revision, tries) == (True, 2, 2)
    assert [one.kind for one in (await app.client.deployment.describe()).changes] == ["set_current_version", "launch"]


async def test_a_workflow_body_changes_no_deployment(replica: Replica, database: str) -> None:
    app = App("shop", database=database, version="v1")

    @app.workflow(name="meddler")
    async def meddler() -> None:
        await app.client.deployment.set_current_version("v2")

    async with app:
        with pytest.raises(NotDurable, match="set_current_version"):
            await meddler()


async def test_blocking_code_has_the_same_verbs(replica: Replica, database: str) -> None:
    await replica("v1")
    await replica("v2")

    def operate() -> list[Any]:
        with perdure.sync.Client(database, app="shop") as client:
            to = client.deployment
            done = [to.set_current_version("v2").changed, to.set_current_version("v2").changed]
            done += [to.set_ramping_version("v1", 1.5).changed, to.unset_ramping_version().changed]
            done += [to.update_metadata("v1", {"a": 1}).changed, to.describe_version("v1").metadata]
            return [*done, [str(one.state) for one in to.list()], to.describe().current]

    assert await asyncio.to_thread(operate) == [
        True, False, True, True, True, {"a": 1}, ["current", "drained"], "v2",
    ]  # fmt: skip
