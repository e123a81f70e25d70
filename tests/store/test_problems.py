"""Attempts that did not get a run on: rows as any other, of the commit that tells them. On both stores."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.ids import RunKey
from perdure.model.problems import Failing, ProblemKind, ProblemRow, Trouble
from perdure.model.records import Incarnation
from perdure.model.states import Reason, Status, Versioning
from perdure.model.trials import Trial
from perdure.model.writes import Continue, Hold, Park, Release, Unit
from perdure.serde.codec import Codec
from perdure.store.base import Store
from perdure.store.coded import coded
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    commit,
    dump,
    one,
    own,
    record,
    row,
    running,
    start,
    tok,
    unit,
    want,
)

BY_CODE = [Reason.NONDETERMINISM, Reason.NO_CODE, Reason.UNDECODABLE]


def failing(attempt: int = 1, path: str = "1", **more: Any) -> Failing:
    fields: dict[str, Any] = {"version": "v1", "name": "charge", "data": b'{"type":"builtins:ValueError"}'}
    return Failing(kind=ProblemKind.STEP_FAILED, path=path, attempt=attempt, **{**fields, **more})


def told(*failings: Failing, **more: Any) -> Trouble:
    return Trouble(now=failings[-1].kind if failings else None, told=failings, **more)


OVER = Trouble(now=None, over=True)


def holding(id: str, claim: bytes, reason: Reason = Reason.NONDETERMINISM, version: str = "v1") -> Unit:
    """A hold, as a run makes it."""
    trouble = told(Failing(kind=ProblemKind(str(reason)), version=version, text="does not fit"))
    return unit(id, claim, change=Hold(reason, "does not fit"), trouble=trouble)


async def problems(store: Store, id: str = "w") -> list[ProblemRow]:
    return await store.problems([id])


async def held(store: Store, id: str, now: int, *, version: str = "v1", **more: Any) -> None:
    claim = await running(store, id, now=now, version=version, **more)
    assert (await one(store, holding(id, claim, version=version), now=now)).applied


async def held_again(store: Store, id: str, now: int) -> None:
    """It was released: claimed, and held as before."""
    [claimed] = await store.claim(want(), now=now)
    assert claimed.row.id == id
    assert (await one(store, holding(id, claimed.row.claim or b""), now=now)).applied


@pytest.mark.parametrize("records", [0, 1])
async def test_an_attempt_is_told_and_over_with_its_units(store: Store, records: int) -> None:
    claim = await running(store, "w")
    first = unit("w", claim, records=[record(1)] * records, trouble=told(failing(next=T + SECOND)))
    assert (await one(store, first, now=T + 1)).applied
    assert (await row(store, "w")).problem is ProblemKind.STEP_FAILED
    assert await problems(store) == [
        ProblemRow(
            id="w", run=1, kind=ProblemKind.STEP_FAILED, path="1", version="v1", name="charge", text="",
            data=b'{"type":"builtins:ValueError"}', attempt=1, first=T + 1, last=T + 1, next=T + SECOND, cleared=None,
        )
    ]  # fmt: skip
    await one(store, unit("w", claim, trouble=told(failing(2, next=T + 9))), now=T + 5)
    [found] = await problems(store)
    assert (found.attempt, found.first, found.last, found.next) == (2, T + 1, T + 5, T + 9)
    await one(store, unit("w", claim, trouble=OVER), now=T + 7)
    [found] = await problems(store)
    assert (found.cleared, found.next, found.attempt) == (T + 7, None, 2)
    assert (await row(store, "w")).problem is None


@pytest.mark.parametrize(
    "more",
    [
        {}, {"records": [record(1)]}, {"change": Park(None, "waits")}, {"change": Hold(Reason.NO_CODE, "why")},
        {"change": close()}, {"change": Park(None, "waits", ("other",))},
    ],
)  # fmt: skip
async def test_a_repeated_unit_tells_it_once(store: Store, more: dict[str, Any]) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, trouble=told(failing(path="9"))))
    counted = Failing(kind=ProblemKind.NO_CODE, version="v1", text="why")
    u = unit("w", claim, trouble=Trouble(now=counted.kind, told=(counted,), over=True), **more)
    assert (await one(store, u, now=T + 3)).applied
    before = await dump(store)
    assert (await one(store, u, now=T + 8)).applied
    assert (await dump(store))["problem"] == before["problem"]
    assert [(p.kind, p.attempt, p.cleared) for p in await problems(store)] == [
        ("step_failed", 1, T + 3), ("no_code", 1, None),
    ]  # fmt: skip


async def test_a_refused_unit_tells_nothing(store: Store) -> None:
    await running(store, "w")
    assert not (await one(store, unit("w", OTHER, trouble=told(failing())))).applied
    assert await problems(store) == []
    assert (await row(store, "w")).problem is None


async def test_what_is_over_leaves_steps_that_are_still_to_be_tried(store: Store) -> None:
    claim = await running(store, "w")
    died = Failing(kind=ProblemKind.EXECUTOR_DIED, version="v1")
    await one(store, unit("w", claim, trouble=told(failing(path="1"), failing(path="2"), died)))
    left = Trouble(now=ProblemKind.STEP_FAILED, over=True, pending=("2",))
    await one(store, unit("w", claim, trouble=left), now=T + 4)
    assert {(p.kind, p.path): p.cleared for p in await problems(store)} == {
        ("executor_died", ""): T + 4, ("step_failed", "1"): T + 4, ("step_failed", "2"): None,
    }  # fmt: skip
    assert (await row(store, "w")).problem is ProblemKind.STEP_FAILED


async def test_each_unit_of_a_batch_says_its_own(store: Store) -> None:
    claims = {id: await running(store, id) for id in ("a", "b", "c", "d")}
    both = (failing(path="1"), failing(path="2"))
    await commit(store, *(unit(id, claims[id], trouble=told(*both)) for id in claims))
    left = Trouble(now=ProblemKind.STEP_FAILED, over=True, pending=("2",))
    again = Trouble(now=ProblemKind.STEP_FAILED, over=True, told=(failing(2, path="1"),))
    units = [unit(id, claims[id], trouble=trouble) for id, trouble in zip("abc", (OVER, left, again), strict=True)]
    units.append(unit("d", OTHER, trouble=OVER))  # refused
    receipt = await commit(store, *units, now=T + 4)
    assert [verdict.applied for verdict in receipt.verdicts] == [True, True, True, False]
    over = {p.id + p.path: p.cleared for p in await store.problems(list(claims))}
    done = T + 4
    assert over == {"a1": done, "a2": done, "b1": done, "b2": None, "c1": None, "c2": done, "d1": None, "d2": None}
    assert [(await row(store, id)).problem for id in claims] == [None] + [ProblemKind.STEP_FAILED] * 3


async def test_each_version_has_its_own_and_what_comes_back_begins_anew(store: Store) -> None:
    claim = await running(store, "w")
    for version in ("v1", "v2", "v2"):
        counted = Failing(kind=ProblemKind.NONDETERMINISM, version=version, text=f"not {version}")
        await one(store, unit("w", claim, trouble=told(counted)), now=T + 1)
    assert [(p.version, p.text, p.attempt) for p in await problems(store)] == [("v1", "not v1", 1), ("v2", "not v2", 2)]
    await one(store, unit("w", claim, trouble=OVER), now=T + 2)
    again = Failing(kind=ProblemKind.NONDETERMINISM, version="v2", text="again")
    await one(store, unit("w", claim, trouble=told(again)), now=T + 6)
    found = {p.version: p for p in await problems(store)}
    assert (found["v2"].attempt, found["v2"].first, found["v2"].cleared) == (1, T + 6, None)
    assert found["v1"].cleared == T + 2


async def test_it_may_ride_with_the_start_and_goes_with_the_run(store: Store) -> None:
    claim = tok("claim")
    u = own("w", claim, change=Hold(Reason.UNDECODABLE, "why"), trouble=told(failing(path="")))
    assert (await one(store, u)).applied
    assert len(await problems(store)) == 1
    claim = await running(store, "v")
    await one(store, unit("v", claim, trouble=told(failing())))
    following = start("v", None, run=2)
    await one(store, unit("v", claim, change=Continue(following, tok("wake")), trouble=OVER), now=T + 3)
    assert (await row(store, "v")).problem is None
    assert [(p.run, p.cleared) for p in await problems(store, "v")] == [(1, T + 3)]
    past = await store.run(RunKey("v", 1))
    assert past is not None
    assert past.problem is None


async def test_whoever_takes_over_from_the_dead_tells_it(store: Store) -> None:
    """Of one that no row tells of it cannot say who it was."""
    forgotten = tok("forgotten")
    for who in (
        Incarnation(id=ME, executor="api-1", version="v1", host="h1", pid=77),
        Incarnation(id=OTHER, executor="api-2", version="v1", host="h2", pid=78),
    ):
        await store.register(who, SECOND, now=T)
    claim = await running(store, "w", "calm")
    await one(store, unit("calm", claim, change=Park(None, "waits")))
    [taken] = await store.adopt([ME], want(owner=OTHER), now=T + 5)
    assert taken.row.problem is ProblemKind.EXECUTOR_DIED
    [found] = await problems(store)
    assert (found.kind, found.text, found.attempt, found.first) == (
        "executor_died", "executor api-1 died (pid 77 on h1)", 1, T + 5,
    )  # fmt: skip
    await store.commit([unit("w", taken.row.claim or b"", change=Release())], now=T + 6)
    [again] = await store.claim(want(owner=forgotten), now=T + 7)
    assert again.row.id == "w"
    await store.adopt([forgotten], want(owner=ME), suspects=True, now=T + 8)
    [found] = await problems(store)
    assert (found.attempt, found.first, found.last, found.text) == (2, T + 5, T + 8, "its executor died")
    assert await problems(store, "calm") == []
    [id] = await store.release_orphans([ME], [], 10, now=T + 9)
    assert (id, (await row(store, "w")).problem) == ("w", ProblemKind.EXECUTOR_DIED)
    [found] = await problems(store)
    assert (found.attempt, found.last) == (3, T + 9)


@pytest.mark.usefixtures("serving")
async def test_a_takeover_that_is_no_death_tells_nothing(store: Store) -> None:
    await running(store, "w")
    [taken] = await store.adopt([ME], want(owner=OTHER), death=False, now=T + 5)
    assert taken.row.problem is None
    assert await problems(store) == []


async def test_a_turn_that_takes_too_long_is_noted_for_whoever_holds_the_run(store: Store) -> None:
    claim = await running(store, "w")
    key, nonce = RunKey("w", 1), tok("turn")
    assert not await store.note_turn(key, OTHER, "stuck", nonce, now=T + 1)
    assert await problems(store) == []
    assert await store.note_turn(key, claim, "stuck", nonce, now=T + 2)
    await store.note_turn(key, claim, "stuck", nonce, now=T + 3)  # repeated
    [found] = await problems(store)
    assert (found.kind, found.text, found.version, found.attempt, found.last) == (
        "turn_timeout", "stuck", "v1", 1, T + 2,
    )  # fmt: skip
    assert (await row(store, "w")).problem is ProblemKind.TURN_TIMEOUT
    await store.note_turn(key, claim, "stuck", tok("turn"), now=T + 4)
    assert [p.attempt for p in await problems(store)] == [2]


async def test_with_a_codec_a_failure_is_coded_and_read_plain(store: Store) -> None:
    turned = coded(store, Codec(encode=lambda b: b[::-1], decode=lambda b: b[::-1]))
    claim = await running(store, "w")
    await turned.commit([unit("w", claim, trouble=told(failing()))], now=T)
    [plain] = await turned.problems(["w"])
    [stored] = await store.problems(["w"])
    assert plain.data == b'{"type":"builtins:ValueError"}'
    assert stored.data is not None
    assert stored.data.startswith(b'{"$coded":')


# -- held work that is tried again


async def test_held_again_it_is_released_later_each_time(store: Store) -> None:
    await held(store, "w", T)
    now, waits = T, []
    for _ in range(6):
        due = await store.held_due(BY_CODE, "v1", now)
        assert due is not None
        assert due <= now or await store.release_held(BY_CODE, "v1", now=due - 1) == 0
        waits.append((due - now) // SECOND)
        now = due
        assert await store.release_held(BY_CODE, "v1", now=now) == 1
        await held_again(store, "w", now)
    assert waits == [0, 5, 10, 20, 40, 80]
    assert [p.attempt for p in await problems(store)] == [7]


async def test_the_wait_does_not_grow_for_ever_and_is_forgotten_once_it_got_on(store: Store) -> None:
    claim = await running(store, "w")
    for _ in range(40):
        await one(store, unit("w", claim, trouble=told(Failing(kind=ProblemKind.NO_CODE, version="v1"))))
    [found] = await problems(store)
    assert found.next == T + 5 * 512 * SECOND
    await one(store, unit("w", claim, trouble=OVER))
    await one(store, unit("w", claim, trouble=told(Failing(kind=ProblemKind.NO_CODE, version="v1"))))
    assert [p.next for p in await problems(store)] == [T]


async def test_only_what_was_held_before_is_released(store: Store) -> None:
    await held(store, "before", T)
    await held(store, "after", T + 2)
    assert await store.release_held(BY_CODE, "v1", since=T + 1, now=T + 9) == 1
    assert (await row(store, "after")).status is Status.HELD
    assert await store.held_due(BY_CODE, "v1", T + 1) is None
    assert await store.held_due(BY_CODE, "v1", T + 2) == T + 2


async def test_what_other_versions_hold_is_for_a_version_that_has_not_tried_it(store: Store) -> None:
    for id, more in (
        ("free", {}), ("pinned", {"versioning": Versioning.PINNED}), ("tried", {}), ("mine", {"version": "v2"}),
    ):  # fmt: skip
        await held(store, id, T, **more)  # type: ignore[arg-type]
    claim = await running(store, "policy")
    await one(store, unit("policy", claim, change=Hold(Reason.POLICY, "why"), trouble=told(failing())))
    tried = Trial(id="tried", run=1, last_seq=0, version="v2", reason="nondeterminism", detail="no")
    await store.note_trials([tried], now=T)

    async def found(version: str, now: int = T) -> list[str]:
        return [r.id for r in await store.held_elsewhere(BY_CODE, version, 10, now=now)]

    assert await found("v2") == ["free"]
    assert await found("v3") == ["free", "mine", "tried"]
    [seen] = await store.held_elsewhere(BY_CODE, "v2", 10, now=T)
    assert await store.adopt_strays([seen], "v2", now=T + 1) == ["free"]
    assert await found("v2") == []


async def test_a_version_that_held_it_again_waits_before_it_tries_once_more(store: Store) -> None:
    claim = await running(store, "w", version="v1")
    for _ in range(2):  # v2 has held it twice
        counted = Failing(kind=ProblemKind.NONDETERMINISM, version="v2")
        await one(store, unit("w", claim, trouble=told(counted)))
    await one(store, holding("w", claim))
    assert await store.held_elsewhere(BY_CODE, "v2", 10, now=T + 4 * SECOND) == []
    assert [r.id for r in await store.held_elsewhere(BY_CODE, "v2", 10, now=T + 5 * SECOND)] == ["w"]
