"""Work of versions that nobody runs: found cheaply, moved only as it was seen, noted when tried in vain."""

from __future__ import annotations

import pytest

from perdure.model.ids import RunKey
from perdure.model.orders import BY_CODE
from perdure.model.records import Cause, without_cleanup
from perdure.model.states import Reason, Status, Versioning
from perdure.model.trials import Trial
from perdure.model.writes import Hold, Park
from perdure.store.base import Store
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    T,
    close,
    dump,
    one,
    own,
    queued,
    record,
    row,
    running,
    start,
    tok,
    unit,
    want,
)


async def waiting(store: Store, id: str, until: int | None = None, seqs: int = 2, **more: object) -> None:
    claim = tok("claim")
    await one(store, own(id, claim, start=start(id, claim, **more)))
    records = [record(seq) for seq in range(1, seqs + 1)]
    await one(store, unit(id, claim, records=records, change=Park(until, "waits for mail")))


async def held(store: Store, id: str, reason: Reason) -> None:
    claim = await running(store, id)
    await one(store, unit(id, claim, change=Hold(reason, "both sides")))


def trial(id: str, last_seq: int = 2, version: str = "v2", **more: object) -> Trial:
    fields: dict[str, object] = {"run": 1, "reason": "nondeterminism", "detail": "at 1: …", **more}
    return Trial(id=id, last_seq=last_seq, version=version, **fields)  # type: ignore[arg-type]


async def test_versions_of_what_nobody_holds(store: Store) -> None:
    assert (await store.roll_call()).strays == []
    await queued(store, "a", version="v3")
    await queued(store, "b", version="v1")
    await queued(store, "c", "d", version="")
    await running(store, "e", "f")
    await waiting(store, "g", version="v2")
    await held(store, "h", Reason.POLICY)
    claim = await running(store, "i")
    await one(store, unit("i", claim, change=close()))
    assert (await store.roll_call()).strays == ["v1", "v2", "v3"]


async def test_strays_are_what_may_move_and_was_not_tried(store: Store) -> None:
    await queued(store, "a")
    await queued(store, "b", status=Status.SCHEDULED, delay=SECOND)
    await waiting(store, "c")
    await waiting(store, "d", versioning=Versioning.AUTO_UPGRADE)
    for reason in BY_CODE:
        await held(store, f"e-{reason}", reason)
    await waiting(store, "pinned", versioning=Versioning.PINNED)
    await held(store, "paused", Reason.POLICY)
    await running(store, "running")
    await queued(store, "other", version="v9")
    can = ["a", "b", "c", "d", "e-crashed", "e-no_code", "e-nondeterminism", "e-undecodable"]
    found = await store.strays(["v1"], "v2", 50)
    assert sorted(r.id for r in found) == can
    assert next(r for r in found if r.id == "c") == await row(store, "c")
    everything = await store.strays(["v1", "v9", "v0"], None, 50)
    assert sorted(r.id for r in everything) == sorted([*can, "pinned", "paused", "other"])
    assert len(await store.strays(["v1"], "v2", 3)) == 3
    assert await store.strays([], "v2", 3) == []

    await store.note_trials([trial("c"), trial("a", 0)], now=T)
    assert not {"a", "c"} & {r.id for r in await store.strays(["v1"], "v2", 50)}
    assert {"a", "c"} <= {r.id for r in await store.strays(["v1"], "v3", 50)}, "other code"
    await store.note_trials([trial("c", 1)], now=T)
    assert "c" in {r.id for r in await store.strays(["v1"], "v2", 50)}, "another history"
    await store.note_trials([trial("c", 2, run=2)], now=T)
    assert "c" in {r.id for r in await store.strays(["v1"], "v2", 50)}, "another run"


async def test_the_latest_trial_stands(store: Store) -> None:
    assert await store.trials(["a"]) == {}
    await store.note_trials([trial("a"), trial("b", reason="raised")], now=T)
    await store.note_trials([trial("a", 3, "v3", detail="later")], now=T + 1)
    assert await store.trials(["a", "b", "c"]) == {
        "a": Trial(id="a", run=1, last_seq=3, version="v3", reason="nondeterminism", detail="later", at=T + 1),
        "b": Trial(id="b", run=1, last_seq=2, version="v2", reason="raised", detail="at 1: …", at=T),
    }


async def test_adoption_moves_each_status_and_makes_it_due(store: Store) -> None:
    await queued(store, "queued")
    await queued(store, "scheduled", status=Status.SCHEDULED, delay=9 * SECOND)
    await waiting(store, "waiting")
    await held(store, "held", Reason.NO_CODE)
    await store.note_trials([trial("held", 0, "v0")], now=T)
    seen = await store.strays(["v1"], "v2", 50)
    assert await store.adopt_strays(seen, "v2", now=T + 5) == ["held", "queued", "scheduled", "waiting"]
    rows = await store.rows(["queued", "scheduled", "waiting", "held"])
    assert {r.version for r in rows.values()} == {"v2"}
    assert {r.claim for r in rows.values()} == {None}
    assert {id: (r.status, r.until) for id, r in rows.items()} == {
        "queued": (Status.QUEUED, T),
        "scheduled": (Status.SCHEDULED, T + 9 * SECOND),
        "waiting": (Status.WAITING, T + 5),
        "held": (Status.QUEUED, T + 5),
    }
    assert (rows["held"].reason, rows["held"].detail, rows["waiting"].detail) == (None, "", "waits for mail")
    assert await store.trials(["held"]) == {}
    claimed = await store.claim(want(version="v2"), now=T + 5)
    assert sorted(c.row.id for c in claimed) == ["held", "queued", "waiting"]
    assert await store.adopt_strays(seen, "v2", now=T + 6) == [], "a repeat finds other rows"


@pytest.mark.parametrize("change", ["version", "claim", "seq", "run", "owner", "closed"])
async def test_adoption_compares_what_was_seen(store: Store, change: str) -> None:
    await waiting(store, "a")
    await waiting(store, "b")
    seen = await store.strays(["v1"], "v2", 50)
    if change == "owner":
        await store.cancel("a", "", tok(), now=T)
        [claimed] = await store.claim(want(version="v1"), now=T)
        assert claimed.row.id == "a"
    elif change == "closed":
        await store.terminate("a", "", tok(), now=T)
    elif change == "version":
        assert await store.adopt_strays([r for r in seen if r.id == "a"], "v3", now=T) == ["a"]
    else:
        other = {"claim": tok("new"), "seq": 1, "run": 2}[change]
        field = {"seq": "last_seq"}.get(change, change)
        seen = [type(r)(**{f: getattr(r, f) for f in r.__struct_fields__} | ({field: other} if r.id == "a" else {}))
                for r in seen]  # fmt: skip
    before = await row(store, "a")
    assert await store.adopt_strays(seen, "v2", now=T + 5) == ["b"]
    assert await row(store, "a") == before


async def test_a_late_write_of_who_held_it_is_refused(store: Store) -> None:
    claim = await running(store, "a")
    late = unit("a", claim, records=[record(1)], change=Park(None, "mail"))
    assert (await one(store, late)).applied
    assert await store.adopt_strays(await store.strays(["v1"], "v2", 5), "v2", now=T) == ["a"]
    assert not (await one(store, late)).applied
    assert (await row(store, "a")).until == T


async def test_release_of_orphans_of_versions_that_nobody_runs(store: Store) -> None:
    claim = await running(store, "a", "b")
    await one(store, unit("a", claim, records=[record(1), record(2)]))
    await one(store, own("served", tok("c"), start=start("served", tok("c"), version="v2")))
    await one(store, own("none", tok("c"), start=start("none", tok("c"), version="")))
    await one(store, own("others", tok("c"), start=start("others", tok("c"), owner=OTHER)))
    assert await store.release_orphans([ME], ["v1", "v2"], 10, now=T + 3) == ["none"]  # from before there were versions
    assert await store.release_orphans([OTHER], [], 10, now=T + 3) == ["others"]
    assert len(await store.release_orphans([ME], ["v2"], 1, now=T + 3)) == 1
    assert len(await store.release_orphans([ME], ["v2"], 10, now=T + 3)) == 1
    assert await store.release_orphans([ME], ["v2"], 10, now=T + 3) == []
    a = await row(store, "a")
    assert (a.status, a.owner, a.claim, a.attempts, a.cause) == (Status.QUEUED, None, None, 1, Cause.CRASH)
    assert (a.until, a.last_seq) == (T + 3, 2)
    seen = await store.strays(["v1"], "v2", 5)
    assert await store.adopt_strays(seen, "v2", now=T + 4) == ["a", "b", "others"], "its last_seq is true"
    assert not (await one(store, unit("a", claim, records=[record(3)]))).applied
    [again] = (await store.histories([RunKey("a", 1)])).values()
    assert [r.seq for r in again] == [1, 2]


async def test_cancel_of_what_can_run_nowhere(store: Store) -> None:
    await waiting(store, "a")
    await waiting(store, "b", version="v2")
    for id in ("a", "b"):
        got = await store.cancel(id, "enough", tok("n"), now=T)
        assert got is not None
        assert got.status is Status.WAITING
    assert await store.strays_told_to_cancel(["v1"]) == [("a", "enough")]
    assert await store.strays_told_to_cancel(["v1", "v2", "v3"]) == [("a", "enough"), ("b", "enough")]
    got = await store.cancel("b", "enough", tok("n"), unserved="v1", now=T)
    assert got is not None
    assert got.status is Status.WAITING, "moved meanwhile"
    got = await store.cancel("a", "enough", tok("n"), unserved="v1", now=T + 9)
    assert got is not None
    assert (got.status, got.cancel, got.detail, got.closed) == (
        Status.CANCELLED, "enough", without_cleanup("v1"), T + 9,
    )  # fmt: skip
    assert {wake["dest"] for wake in (await dump(store))["wake"]} == {"b"}
    assert await store.strays_told_to_cancel(["v1"]) == []
