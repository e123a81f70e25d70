"""The journal alone, over a store that answers when it is told to: a run's units one by one, and again as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from perdure.client import aside, parts
from perdure.client.journal import BYTES_MAX, Journal
from perdure.clock import SystemClock
from perdure.errors import LostAnswer, RowLocked
from perdure.model.ids import RunKey
from perdure.model.problems import Failing, ProblemKind, Trouble
from perdure.model.records import Kind, Outcome, Record
from perdure.model.states import Cause, Status
from perdure.model.writes import (
    Append,
    Close,
    Continue,
    Decided,
    Receipt,
    Rewind,
    Send,
    SetEvent,
    Start,
    Unit,
    Verdict,
    size_of,
)
from perdure.store.base import Store
from tests.runtime.support import until


class Slow:
    """A store whose commits are answered by the test."""

    def __init__(self) -> None:
        self.batches: list[list[Unit]] = []
        self._answers: list[asyncio.Future[Receipt]] = []
        self._called = asyncio.Event()

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        self.batches.append(list(batch))
        self._answers.append(asyncio.get_running_loop().create_future())
        self._called.set()
        return await self._answers[-1]

    async def called(self, count: int) -> None:
        while len(self.batches) < count:
            self._called.clear()
            await self._called.wait()

    def answer(self, *applied: bool) -> None:
        self._answers[-1].set_result(Receipt(0, [Verdict(applied=a) for a in applied]))

    def lose(self) -> None:
        self._answers[-1].set_exception(LostAnswer("whether it happened is unknown"))


class Writer:
    """A run that has records to write."""

    queued = False

    def __init__(self, id: str) -> None:
        self.key = RunKey(id, 1)
        self.waiting: list[int] = []
        self.told: list[tuple[list[int], bool]] = []

    def take(self) -> Unit:
        taken, self.waiting = self.waiting, []
        records = [Record(seq=seq, path=str(seq), kind=Kind.STEP, name="s", at=0) for seq in taken]
        return Unit(key=self.key, claim=b"c", nonce=bytes(taken), records=records)

    def written(self, unit: Unit, verdict: Verdict) -> None:
        self.told.append(([r.seq for r in unit.records], verdict.applied))

    def broken(self, unit: Unit, error: Exception) -> None:
        raise error


def seqs(batch: list[Unit]) -> dict[str, list[int]]:
    return {unit.key.id: [r.seq for r in unit.records] for unit in batch}


@pytest.fixture
async def store() -> Slow:
    return Slow()


@pytest.fixture
async def journal(store: Slow) -> Any:
    made = Journal(cast(Store, store), SystemClock(), asyncio.get_running_loop())
    yield made
    made.abort()


def put(journal: Journal, writer: Writer, *seqs: int) -> None:
    for seq in seqs:
        writer.waiting.append(seq)
        journal.put(writer)


async def test_once_all_is_said_it_does_not_wait_for_the_next_turn(journal: Journal, store: Slow) -> None:
    a, b = Writer("a"), Writer("b")
    journal.all_said()
    assert store.batches == [], "there is nothing to write"
    put(journal, a, 1)
    put(journal, b, 1)
    journal.all_said()
    assert [seqs(batch) for batch in store.batches] == [{"a": [1], "b": [1]}]
    put(journal, a, 2)
    journal.all_said()
    assert len(store.batches) == 1, "a commit is under way"
    store.answer(True, True)
    await store.called(2)
    assert seqs(store.batches[1]) == {"a": [2]}


async def test_once_all_is_said_company_that_is_back_is_not_waited_for(journal: Journal, store: Slow) -> None:
    a = Writer("a")
    journal.company.let_go()
    put(journal, a, 1)
    journal.all_said()
    assert store.batches == [], "who was let go may come back at once"
    journal.company.back()
    put(journal, a, 2)
    journal.all_said()
    assert [seqs(batch) for batch in store.batches] == [{"a": [1, 2]}]


async def test_one_unit_of_a_run_is_in_flight_and_the_next_has_all_that_came_meanwhile(
    journal: Journal, store: Slow
) -> None:
    a, b = Writer("a"), Writer("b")
    put(journal, a, 1)
    await store.called(1)
    put(journal, a, 2, 3)
    put(journal, b, 1)
    put(journal, a, 4)
    for _ in range(20):
        await asyncio.sleep(0)
    assert [seqs(batch) for batch in store.batches] == [{"a": [1]}]
    store.answer(True)
    await store.called(2)
    assert seqs(store.batches[1]) == {"a": [2, 3, 4], "b": [1]}
    store.answer(True, False)
    await journal.drained()
    assert (a.told, b.told) == ([([1], True), ([2, 3, 4], True)], [([1], False)])


async def test_while_an_answer_is_unknown_the_same_batch_is_sent_and_no_later_one(
    journal: Journal, store: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    a = Writer("a")
    put(journal, a, 1)
    await store.called(1)
    put(journal, a, 2)
    for tried in (1, 2, 3):
        store.lose()
        await store.called(tried + 1)
    assert a.told == []
    assert all([unit.nonce for unit in batch] == [b"\x01"] for batch in store.batches), "not as it was"
    store.answer(True)
    await store.called(5)
    store.answer(True)
    await journal.drained()
    assert a.told == [([1], True), ([2], True)]


async def test_a_source_with_a_bug_costs_no_other_its_writes(
    journal: Journal, store: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    class Buggy(Writer):
        broke: Exception | None = None

        def take(self) -> Unit:
            raise LookupError("a bug")

        def broken(self, unit: Unit, error: Exception) -> None:
            self.broke = error

    first, buggy, last = Writer("a"), Buggy("b"), Writer("c")
    for source in (first, buggy, last):
        put(journal, source, 1)
    await store.called(1)
    assert seqs(store.batches[0]) == {"a": [1], "c": [1]}
    store.answer(True, True)
    await journal.drained()
    assert first.told == last.told == [([1], True)]
    assert isinstance(buggy.broke, LookupError)
    assert "a bug" in caplog.text


async def test_what_a_caller_withdraws_is_not_tried_again_and_the_rest_of_its_batch_is(
    store: Slow, journal: Journal
) -> None:
    first, second, third = (journal.offer(unit_of(name)) for name in "abc")
    await store.called(1)
    assert journal.withdraw(second), "it is with the store just now"
    late = journal.offer(unit_of("d"))
    assert not journal.withdraw(late), "it is not on its way yet"
    store.lose()
    await store.called(2)
    assert [[unit.key.id for unit in batch] for batch in store.batches] == [["a", "b", "c"], ["a", "c"]]
    store.answer(True, False)
    assert ((await first.future).applied, (await third.future).applied) == (True, False)
    await journal.drained()
    assert len(store.batches) == 2, "what was withdrawn before it was sent is never sent"
    assert not late.future.done()
    assert isinstance(second.future.exception(), RuntimeError)
    assert journal.silent_since is None


async def test_a_batch_that_was_withdrawn_whole_ends(store: Slow, journal: Journal) -> None:
    only = journal.offer(unit_of("a"))
    await store.called(1)
    store.lose()
    await store.called(2)
    journal.withdraw(only)
    only.future.cancel()
    assert journal.busy
    store.lose()
    await journal.drained()
    assert len(store.batches) == 2


class Busy(Writer):
    """A run that always has more to write."""

    def written(self, unit: Unit, verdict: Verdict) -> None:
        super().written(unit, verdict)
        put(self.journal, self, len(self.told) + 1)

    def __init__(self, id: str, journal: Journal) -> None:
        super().__init__(id)
        self.journal = journal


class Quick:
    """A store that answers at once, but of a batch with one of ``bad`` in it loses the answer; or finds it locked."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.locked: set[str] = set()
        self.batches: list[list[str]] = []
        self.lost = 0
        self.turns = 0  # of the loop, until it answers
        self.away = False
        self.asked = 0  # whether it answers at all

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        ids = [unit.key.id for unit in batch]
        await turns(self.turns)
        if self.away:
            self.asked += not batch
            raise LostAnswer("nobody there")
        if not batch:
            return Receipt(0, [])
        if self.bad.intersection(ids):
            self.lost += 1
            raise LostAnswer("the connection broke")
        if self.locked.intersection(ids):
            self.lost += 1
            raise RowLocked("another transaction has it")
        self.batches.append(ids)
        return Receipt(0, [Verdict(applied=True) for _ in batch])


@pytest.fixture
async def quick() -> Quick:
    return Quick()


@pytest.fixture
async def over_quick(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(parts, "TRIES_WHOLE", 2)
    monkeypatch.setattr(aside, "SECONDS", 0.01)
    made = Journal(cast(Store, quick), SystemClock(), asyncio.get_running_loop())
    yield made
    made.abort()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("others", [1, 40], ids=["few", "handed over in halves"])
async def test_what_was_put_before_is_told_though_the_journal_never_rests(
    journal: Journal, store: Slow, others: int
) -> None:
    """A barrier: neither sooner than what it stands behind, nor later for what comes after it."""
    busy = [Busy(f"busy{nth}", journal) for nth in range(others)]
    for one in busy:
        put(journal, one, 1)
    await store.called(1)
    late = Writer("late")
    put(journal, late, 1)
    behind = asyncio.create_task(journal.caught_up())
    await turns()
    store.answer(*[True] * others)
    await store.called(2)
    await turns()
    assert not behind.done(), "what was put before it is under way"
    assert "late" in seqs(store.batches[1])
    store.answer(*[True] * len(store.batches[1]))
    await behind
    assert late.told == [([1], True)]
    assert journal.busy


async def test_a_barrier_waits_for_both_halves_of_a_batch(journal: Journal, store: Slow) -> None:
    sources = [Writer(str(nth)) for nth in range(100)]
    for source in sources:
        put(journal, source, 1)
    behind = [asyncio.create_task(journal.caught_up()) for _ in range(3)]
    await store.called(1)
    store.answer(*[True] * len(sources))
    await asyncio.wait(behind, return_when=asyncio.FIRST_COMPLETED)
    assert all(source.told for source in sources)


async def test_an_idle_journal_is_caught_up_at_once_and_an_aborted_one_too(journal: Journal, store: Slow) -> None:
    await journal.caught_up()
    put(journal, Writer("a"), 1)
    await store.called(1)
    behind = asyncio.create_task(journal.caught_up())
    await turns()
    journal.abort()
    await behind
    await journal.caught_up()


async def test_a_database_that_is_quicker_than_the_loop_costs_nobody_a_verdict(
    quick: Quick, over_quick: Journal
) -> None:
    """The next batch is answered while the last one is being handed over in halves."""

    class Twice(Writer):
        def written(self, unit: Unit, verdict: Verdict) -> None:
            super().written(unit, verdict)
            if len(self.told) == 1:
                put(over_quick, self, 2)

    sources = [Twice(str(nth)) for nth in range(200)]
    for source in sources:
        put(over_quick, source, 1)
    await over_quick.drained()
    assert all(source.told == [([1], True), ([2], True)] for source in sources)


BIG = b"x" * 1_900_000
START = Start(id="s", lineage=b"", name="n", version="", input=BIG, fingerprint=b"", nonce=b"")
RECORD = Record(seq=1, path="1", kind=Kind.STEP, name="s", at=0, data=BIG)
PAYLOADS: dict[str, dict[str, Any]] = {
    "record": {"records": [RECORD]},
    "append": {"appends": [Append("s", "1", 0, BIG)]},
    "start": {"start": START},
    "child": {"children": [START]},
    "send": {"sends": [Send("d", b"m", "t", BIG, b"w")]},
    "event": {"events": [SetEvent("e", BIG)]},
    "close": {"change": Close(Status.COMPLETED, Outcome.VALUE, BIG, b"w")},
    "continue": {"change": Continue(START, b"w")},
    "rewind": {"change": Rewind(next=START, keep=0, mark=RECORD, wake=b"w")},
    "decision": {
        "decision": Decided(
            cause=Cause.CRASH, decision="", policy="", because="", parameters=None, evidence=BIG, executor=""
        )
    },
    "trouble": {"trouble": Trouble(now=None, told=(Failing(kind=ProblemKind.STEP_FAILED, version="", data=BIG),))},
}


@pytest.mark.parametrize("kind", PAYLOADS)
async def test_a_batch_is_bounded_by_the_bytes_of_whatever_it_carries(
    quick: Quick, over_quick: Journal, kind: str
) -> None:
    unit = Unit(key=RunKey("a", 1), claim=b"c", nonce=b"n", **PAYLOADS[kind])
    assert size_of(unit) >= len(BIG)
    await asyncio.gather(*(over_quick.write(unit) for _ in range(9)))
    assert max(map(len, quick.batches)) <= BYTES_MAX // len(BIG) + 1
    assert sum(map(len, quick.batches)) == 9


async def test_one_part_that_always_fails_keeps_no_other_from_being_written(
    quick: Quick, over_quick: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside, tried again between the others' batches, and told once it is written."""
    quick.bad = {"13"}
    writers = [Writer(str(nth)) for nth in range(40)]
    for writer in writers:
        put(over_quick, writer, 1)
    await over_quick.caught_up()
    bad = writers.pop(13)
    assert all(writer.told == [([1], True)] for writer in writers)
    assert bad.told == []
    assert "a write of workflow '13'" in caplog.text

    put(over_quick, bad, 2)
    put(over_quick, writers[0], 2)
    await over_quick.caught_up()
    assert writers[0].told[1:] == [([2], True)]
    assert (bad.told, bad.waiting) == ([], [2]), "at most one unit of a source is under way"
    assert over_quick.trouble is None
    assert over_quick.busy

    behind = asyncio.create_task(over_quick.caught_up(bad))
    lost = quick.lost
    await until(lambda: quick.lost >= lost + 3)
    assert not behind.done()
    quick.bad.clear()
    quick.turns = 20
    await behind
    assert bad.told == [([1], True), ([2], True)], "what waited for what was set aside had been put before, too"


async def test_two_parts_that_always_fail_are_both_set_aside(quick: Quick, over_quick: Journal) -> None:
    quick.bad = {"3", "29"}
    offers = {str(nth): over_quick.offer(unit_of(str(nth))) for nth in range(33)}
    bad = [offers.pop(id).future for id in sorted(quick.bad)]
    await asyncio.gather(*(offer.future for offer in offers.values()))
    assert not any(future.done() for future in bad)
    quick.bad.clear()
    await asyncio.gather(*bad)


async def test_two_that_fail_with_nothing_else_in_their_batch_let_others_try(quick: Quick, over_quick: Journal) -> None:
    """The database answers who writes nothing, so it is no outage."""
    quick.bad = {"a", "b"}
    bad = [over_quick.offer(unit_of(id)) for id in sorted(quick.bad)]
    await turns(1)
    await asyncio.wait_for(over_quick.write(unit_of("c")), 10)
    assert not any(one.future.done() for one in bad)
    quick.bad.clear()
    await asyncio.gather(*(one.future for one in bad))


async def test_in_an_outage_nothing_is_set_aside(quick: Quick, over_quick: Journal) -> None:
    quick.away = True
    first = [over_quick.offer(unit_of(id)) for id in "ab"]
    await turns(1)
    last = over_quick.offer(unit_of("c"))
    await until(lambda: quick.asked >= 3)
    quick.away = False
    await asyncio.gather(*(one.future for one in (*first, last)))
    assert sorted(quick.batches[:2]) == [["a"], ["b"]]


async def test_a_lone_unit_that_fails_lets_others_try(quick: Quick, over_quick: Journal) -> None:
    quick.bad = {"a"}
    bad = over_quick.offer(unit_of("a"))
    await turns(1)
    await over_quick.write(unit_of("b"))
    assert not bad.future.done()
    assert over_quick.withdraw(bad), "it may have been written"
    await over_quick.drained()
    assert isinstance(bad.future.exception(), RuntimeError)


async def test_what_is_set_aside_is_tried_again_though_its_timer_rings_early(
    quick: Quick, over_quick: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a loop's clock may have it; nothing else asks for it once more."""
    monkeypatch.setattr(aside, "SECONDS", 3600.0)
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, list[Callable[[], object]]()

    def by_hand(when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if when < loop.time() + 1800:
            return call_at(when, callback, *args, context=context)
        timers.append(lambda: callback(*args))
        return None

    monkeypatch.setattr(loop, "call_at", by_hand)
    quick.bad = {"a"}
    bad = over_quick.offer(unit_of("a"))
    await turns(1)
    await over_quick.write(unit_of("b"))
    quick.bad.clear()
    await turns()
    assert not bad.future.done()
    [ring] = timers
    ring()
    await turns()
    assert bad.future.done()


async def test_who_waits_for_a_lock_of_another_transaction_is_told_from_an_outage_at_once(
    quick: Quick, over_quick: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try costs as long as the lock may be waited for: the batch is parted at the first."""
    monkeypatch.setattr(parts, "TRIES_WHOLE", 8)
    quick.locked = {"3"}
    offers = {str(nth): over_quick.offer(unit_of(str(nth))) for nth in range(8)}
    locked = offers.pop("3").future
    await asyncio.gather(*(offer.future for offer in offers.values()))
    assert quick.lost < parts.TRIES_WHOLE
    assert not locked.done()
    quick.locked.clear()
    await locked


async def test_who_all_wait_for_locks_let_others_be_written(quick: Quick, over_quick: Journal) -> None:
    quick.locked = {"a", "b"}
    locked = [over_quick.offer(unit_of(id)).future for id in sorted(quick.locked)]
    await turns(1)
    await over_quick.write(unit_of("c"))
    assert not any(future.done() for future in locked)
    quick.locked.clear()
    await asyncio.gather(*locked)


async def test_however_many_are_set_aside_the_others_have_most_of_the_time(
    quick: Quick, over_quick: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each try that failed all of them rest, the longer the longer it took."""
    monkeypatch.setattr(aside, "SHARE", 10**9)
    monkeypatch.setattr(aside, "SECONDS", 0.0)
    quick.locked = {str(nth) for nth in range(12)}
    locked = [over_quick.offer(unit_of(id)).future for id in sorted(quick.locked)]
    await turns(1)
    for nth in range(20):
        await over_quick.write(unit_of(f"other{nth}"))
    assert over_quick.tried_again < len(locked), "the longer way for a batch or two, and one of those set aside"
    assert not any(future.done() for future in locked)


async def test_in_an_outage_nothing_is_set_aside_and_everything_is_written_after_it(
    quick: Quick, over_quick: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [str(nth) for nth in range(5)]
    quick.bad = set(ids)
    offers = [over_quick.offer(unit_of(id)) for id in ids]
    await until(lambda: quick.lost >= 9)
    assert over_quick.trouble is not None
    assert over_quick.silent_since is not None
    quick.bad.clear()
    await asyncio.gather(*(offer.future for offer in offers))
    assert sorted(id for batch in quick.batches for id in batch) == ids
    assert "fails while others are written" not in caplog.text
    assert over_quick.trouble is None


async def test_a_write_that_no_database_takes_at_once_is_told_broken(
    quick: Quick, over_quick: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MESSAGE_BYTES_MAX", 100)
    quick.bad = {"a"}
    with pytest.raises(ValueError, match="more than the database takes at once"):
        await over_quick.write(unit_of("a"))


def unit_of(id: str) -> Unit:
    return Unit(
        key=RunKey(id, 1), claim=b"c", nonce=b"n", records=[Record(seq=1, path="1", kind=Kind.STEP, name="s", at=0)]
    )
