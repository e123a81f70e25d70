"""Decisions about interrupted runs, and questions to executors that have the code: rows as any other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Incarnation, Kind, Outcome, Record, Request
from perdure.model.states import Cause, Reason, Status
from perdure.model.writes import Decided, Delete, Hold, Park, Release, SetEvent, Unit
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
    history,
    one,
    outside,
    queued,
    record,
    row,
    running,
    send,
    tok,
    unit,
    want,
)


def decided(decision: str = "hold", **more: Any) -> Decided:
    fields: dict[str, Any] = {
        "cause": Cause.CRASH, "policy": "p", "because": "why", "parameters": b'{"a":1}', "evidence": b'{"attempt":1}',
        "executor": "here",
    }  # fmt: skip
    return Decided(decision=decision, **{**fields, **more})


def told(seq: int) -> Record:
    return Record(seq, "", Kind.DECISION, "resume", T, b"", Outcome.VALUE, b'{"a":1}')


async def names(store: Store, id: str = "w") -> list[tuple[str, str, bytes]]:
    return [(r.decision, r.policy, r.claim) for r in await store.decisions([id])]


async def test_a_decision_is_written_with_its_effect(store: Store) -> None:
    claim = await running(store, "w")
    u = unit("w", claim, records=[told(1)], change=Hold(Reason.POLICY, "why"), decision=decided())
    assert (await one(store, u, now=T + 5)).applied
    [found] = await store.decisions(["w"])
    assert (found.id, found.run, found.claim, found.at) == ("w", 1, claim, T + 5)
    assert (found.cause, found.decision, found.policy, found.because) == (Cause.CRASH, "hold", "p", "why")
    assert (found.parameters, found.evidence, found.executor) == (b'{"a":1}', b'{"attempt":1}', "here")
    assert (await row(store, "w")).status is Status.HELD
    assert [r.kind for r in await history(store, "w")] == [Kind.DECISION]


@pytest.mark.parametrize(
    "change", [None, Hold(Reason.POLICY, "why"), close(Status.TERMINATED), Release(), Release("v9"), Delete()]
)
@pytest.mark.parametrize("records", [0, 1])
async def test_a_repeated_decision_is_the_same_and_written_once(store: Store, change: Any, records: int) -> None:
    claim = await running(store, "w")
    recorded = [told(1)] * records
    u = unit("w", claim, records=recorded, change=change, decision=decided("delete" if change == Delete() else "hold"))
    assert (await one(store, u, now=T + 5)).applied
    before = await dump(store)
    assert (await one(store, u, now=T + 9)).applied
    after = await dump(store)
    assert [r["at"] for r in after["decision"]] == [T + 5]
    assert {**after, "workflow": []} == {**before, "workflow": []}


async def test_a_decision_under_a_stale_claim_is_refused_whole(store: Store) -> None:
    await running(store, "w")
    before = await dump(store)
    for change in (None, Hold(Reason.POLICY, ""), Delete(), Release("v9")):
        assert not (await one(store, unit("w", tok(), change=change, decision=decided("delete")))).applied
        assert not (await one(store, unit("none", tok(), change=change, decision=decided("delete")))).applied
    assert await dump(store) == before


async def test_an_adoption_after_a_death_notes_the_default_and_a_decision_stands_in_its_place(store: Store) -> None:
    await store.register(Incarnation(id=ME, executor="dead one", version="v1"), SECOND, now=T)
    await store.register(Incarnation(id=OTHER, executor="heir", version="v1"), SECOND, now=T)
    await running(store, "w", "x")
    taken = await store.adopt([ME], want(owner=OTHER, token=OTHER), now=T + 7)
    assert {c.row.id for c in taken} == {"w", "x"}
    for id in ("w", "x"):
        [noted] = await store.decisions([id])
        assert (noted.cause, noted.decision, noted.policy, noted.claim) == (Cause.CRASH, "resume", "", OTHER)
        assert (noted.at, noted.executor, noted.parameters) == (T + 7, "heir", None)
        evidence = msgspec.json.decode(noted.evidence)
        assert evidence == {"owner": ME.hex(), "executor": "dead one", "attempt": 1}
    kept = decided(evidence=b"{}", because="the limit")
    assert (
        await one(store, unit("w", OTHER, change=Hold(Reason.RECOVERY_LIMIT, ""), decision=kept), now=T + 9)
    ).applied
    [noted] = await store.decisions(["w"])
    assert (noted.decision, noted.because, noted.at) == ("hold", "the limit", T + 7)
    assert msgspec.json.decode(noted.evidence)["executor"] == "dead one"


@pytest.mark.usefixtures("serving")
async def test_an_adoption_that_is_no_death_notes_nothing(store: Store) -> None:
    await running(store, "w")
    assert await store.adopt([ME], want(owner=OTHER), death=False, now=T)
    assert await store.decisions(["w"]) == []


async def test_delete_forgets_every_trace_but_the_decision(store: Store) -> None:
    claim = await running(store, "w", "stays")
    await one(store, unit("w", claim, records=[record(1)], events=[SetEvent("e", b"1")]))
    await one(store, outside(sends=[send("w"), send("stays")]))
    assert (await one(store, unit("w", claim, change=Delete(), decision=decided("delete")))).applied
    left = await dump(store)
    assert [r["id"] for r in left.pop("decision")] == ["w"]
    for table, found in left.items():
        assert "w" not in {r.get("id", r.get("dest")) for r in found}, table
    assert [r["dest"] for r in left["message"]] == ["stays"]
    await queued(store, "w")  # the id is free
    assert (await row(store, "w")).status is Status.QUEUED
    late = unit("w", claim, change=Delete(), decision=decided("delete"))
    assert (await one(store, late)).applied  # recognised as a repeat, and touches nothing
    assert (await row(store, "w")).status is Status.QUEUED


@pytest.mark.parametrize("parks", ["before", "in the same batch", "afterwards"])
async def test_who_parked_to_wait_for_what_is_deleted_is_woken(store: Store, parks: str) -> None:
    claim = await running(store, "w", "waiter")
    park = unit("waiter", claim, change=Park(None, "", ("w",)))
    delete = unit("w", claim, change=Delete(), decision=decided("delete"))
    batches = {"before": [[park], [delete]], "in the same batch": [[delete, park]], "afterwards": [[delete], [park]]}
    for batch in batches[parks]:
        assert all(v.applied for v in (await commit(store, *batch)).verdicts)
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["waiter"]
    left = await dump(store)
    assert (left["wake"], left["watch"]) == ([], [])


@pytest.mark.usefixtures("serving")
async def test_moved_work_is_claimed_by_the_other_version_with_nothing_left_to_decide(store: Store) -> None:
    claim = await running(store, "w")
    await store.adopt([ME], want(owner=OTHER, token=OTHER), now=T)
    assert not (await one(store, unit("w", claim, change=Release("v9"), decision=decided()))).applied
    assert (await one(store, unit("w", OTHER, change=Release("v9"), decision=decided("move_to")))).applied
    assert await store.claim(want(version="v1"), now=T + SECOND) == []
    [taken] = await store.claim(want(version="v9"), now=T + SECOND)
    assert (taken.row.version, taken.row.cause, taken.row.attempts) == ("v9", Cause.NONE, 1)


async def test_decisions_go_with_others_in_a_batch(store: Store) -> None:
    claim = await running(store, "a", "b", "c")
    receipt = await commit(
        store,
        unit("a", claim, records=[record(1)]),
        unit("b", claim, decision=decided("resume")),
        unit("c", tok(), decision=decided("terminate"), change=close(Status.TERMINATED)),
    )
    assert [v.applied for v in receipt.verdicts] == [True, True, False]
    assert [r.id for r in await store.decisions(["a", "b", "c"])] == ["b"]
    assert not Unit(key=RunKey("b", 1), decision=decided()).empty


# -- questions


async def test_a_question_is_for_one_version_and_answered_once(make_store: Callable[[str], Awaitable[Store]]) -> None:
    a, b = await make_store("a"), await make_store("b")
    first, second = Request(tok("q1"), "plan", b'{"n":1}'), Request(tok("q2"), "plan", b"{}")
    await a.ask("v1", first, SECOND, now=T)
    await a.ask("v1", first, SECOND, now=T)
    await a.ask("v1", second, 9 * SECOND, now=T + 1)
    assert await a.asked("v1", now=T + 2) == [first, second]
    assert await a.asked("v2", now=T + 2) == []
    assert await b.asked("v1", now=T + 2) == []
    assert await a.answered(first.nonce) is None
    await a.answer(first.nonce, ME, b"[1]")
    await a.answer(first.nonce, OTHER, b"[2]")
    assert await a.answered(first.nonce) == b"[1]"
    assert await a.answered(first.nonce) is None
    assert await a.asked("v1", now=T + 2) == [second]
    assert await a.asked("v1", now=T + 20 * SECOND) == []
    await a.ask("v1", first, SECOND, now=T + 20 * SECOND)  # forgets what nobody waits for
    assert len((await dump(a))["request"]) == 1


async def test_what_a_decision_sets_passes_the_codec(store: Store) -> None:
    codec = Codec(encode=lambda data: data[::-1], decode=lambda data: data[::-1])
    secret = coded(store, codec)
    claim = await running(store, "w")
    u = unit("w", claim, records=[told(1)], decision=decided("resume", parameters=b'{"card":"4111"}'))
    assert (await one(secret, u)).applied
    [found] = await secret.decisions(["w"])
    assert found.parameters == b'{"card":"4111"}'
    tables = await dump(store)
    assert "4111" not in str(tables["decision"])
    assert (await history(secret, "w"))[0].data == b'{"a":1}'
    assert '"a"' not in str(tables["history"])
