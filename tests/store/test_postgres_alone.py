"""Statements for what is written alone: each writes what the batch's statement would, and what it refuses goes that
way, so that nothing shows but the time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Outcome
from perdure.model.states import Reason, Status, Versioning
from perdure.model.writes import Close, Hold, Park, SetEvent, Unit
from perdure.store.postgres import PostgresStore, lone
from perdure.store.postgres.connection import Link, Statement
from perdure.store.postgres.shapes import PARTS, shape
from perdure.store.postgres.text import statements
from tests.store.build import (
    ME,
    OTHER,
    SECOND,
    Dump,
    T,
    close,
    commit,
    dump,
    history,
    one,
    outside,
    own,
    queued,
    record,
    row,
    running,
    send,
    start,
    tok,
    unit,
    want,
)
from tests.store.conftest import MakeStore, make_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.sampled(20)]


class Sent:
    """What a store's writer sent, by the names of its statements; those of the longer way are ``longer``."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names = {shape(name, "perdure").sql: name for name in PARTS}
        self.names |= {lone.statement(form, "perdure")[0]: f"alone: {form}" for form in lone.PARTS}
        self.names |= {sql: name for name, sql in statements("perdure").items() if name in ("checkpoint", "lock")}

    def take(self) -> list[str]:
        found = [self.names[sql] for sql in self.texts if sql in self.names]
        self.texts.clear()
        return found


@pytest.fixture
async def make(postgres_url: str) -> AsyncIterator[MakeStore]:
    made: list[Any] = []

    async def one_more(app: str = "app") -> Any:
        store = make_postgres(postgres_url, app)
        made.append(store)
        await store.open()
        await store.migrate()
        return store

    yield one_more
    for store in made:
        await store.close()


@pytest.fixture
async def store(make: MakeStore) -> Any:
    return await make("app")


@pytest.fixture
def sent(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> Sent:
    made = Sent()
    prepare = Link.prepare

    async def noted(link: Link, sql: str) -> Statement:
        if link is store._writing:
            made.texts.append(sql)
        return await prepare(link, sql)

    monkeypatch.setattr(Link, "prepare", noted)
    return made


# -- the same rows and verdicts as by the batch's statement

CLAIM = tok("claim")
MAIL, COMMAND = send("w"), tok("command")
Build = Callable[[], Sequence[Unit]]


def told(**more: Any) -> Unit:
    return unit("w", CLAIM, records=[record(1, Kind.STEP, b"{}")], **more)


def _two(**more: Any) -> Unit:
    second = record(2, Kind.EVENT, None, shown="e = 1", intents=(Intent("3", "next", b"fp"),))
    return unit("w", CLAIM, records=[record(1), second], **more)


def ended(**more: Any) -> Unit:
    return unit("w", CLAIM, records=[record(1, intents=(Intent("2", "next", b"fp"),))], change=close(**more))


def begun(id: str = "n", **more: Any) -> Unit:
    return own(id, CLAIM, start=start(id, CLAIM, **more))


CASES: dict[str, tuple[str, Build]] = {
    "start": ("start", lambda: [begun()]),
    "start with all there is": (
        "start",
        lambda: [
            begun(
                timeout=SECOND,
                deadline=T + 9 * SECOND,
                began=T - 5,
                parent="friend",
                parent_run=1,
                parent_path="1.2",
                on_parent_close="abandon",
                queue="q",
                priority=3,
                attributes=b'{"a":1}',
                intents=(Intent("1", "first", b"fp"),),
                versioning=Versioning.PINNED,
            )
        ],
    ),
    "start with a deadline before its timeout": ("start", lambda: [begun(timeout=9 * SECOND, deadline=T + SECOND)]),
    "start of what is watched": ("start", lambda: [begun("awaited")]),
    "start that nobody holds": ("start", lambda: [Unit(key=RunKey("n", 1), nonce=tok("unit"), start=start("n"))]),
    "start from outside": ("start", lambda: [outside(children=[start("n", timeout=SECOND, deadline=T + 7)])]),
    "scheduled": (
        "start",
        lambda: [outside(children=[start("n", status=Status.SCHEDULED, delay=2 * SECOND, owner=ME)])],
    ),
    "scheduled for a time": ("start", lambda: [outside(children=[start("n", status=Status.SCHEDULED, until=T + 7)])]),
    "start of what is there": ("start", lambda: [begun("friend")]),
    "start from outside of what is there": ("start", lambda: [outside(children=[start("friend")])]),
    "end": ("end", lambda: [ended()]),
    "end of a failed one": ("end", lambda: [ended(status=Status.FAILED)]),
    "end without a value": (
        "end",
        lambda: [
            unit("w", CLAIM, records=[record(1, data=None)], change=Close(Status.CANCELLED, Outcome.ERROR, None, tok()))
        ],
    ),
    "end and start": ("end_and_start", lambda: [ended(), begun()]),
    "start and end": ("end_and_start", lambda: [begun(), ended()]),
    "end and start from outside": ("end_and_start", lambda: [ended(), outside(children=[start("n")])]),
    "end and start of what is there": ("end_and_start", lambda: [ended(), begun("friend")]),
    "end and start of what is watched": ("end_and_start", lambda: [ended(), begun("awaited")]),
    "send": ("send", lambda: [outside(sends=[send("friend", sender="me", key="k")])]),
    "send to one that is held": ("send", lambda: [outside(sends=[send("held")])]),
    "send to nobody": ("send", lambda: [outside(sends=[send("nobody")])]),
    "send to nobody, unchecked": ("send", lambda: [outside(sends=[send("nobody", known=True)])]),
    "send to a closed one": ("send", lambda: [outside(sends=[send("over")])]),
    "send to a closed one, unchecked": ("send", lambda: [outside(sends=[send("over", known=True)])]),
    "received": ("told", lambda: [told(taken=[(MAIL.mid, 1)], woken=[MAIL.wake])]),
    "received, not woken": ("told", lambda: [told(taken=[(MAIL.mid, 1)])]),
    "woken for nothing": ("told", lambda: [told(woken=[tok("unknown")])]),
    "event": ("told", lambda: [told(events=[SetEvent("e", b"1")])]),
    "event and mail": (
        "told",
        lambda: [told(taken=[(MAIL.mid, 1)], woken=[MAIL.wake], events=[SetEvent("e", b"1")])],
    ),
    "received and ended": ("told_end", lambda: [told(taken=[(MAIL.mid, 1)], woken=[MAIL.wake], change=close())]),
    "event and ended": ("told_end", lambda: [told(events=[SetEvent("e", b"1")], change=close())]),
    "end of two": ("end_of_two", lambda: [_two(change=close())]),
    "end of two and start": ("end_and_start_of_two", lambda: [_two(change=close()), begun()]),
    "received, then an event": (
        "told_of_two",
        lambda: [_two(taken=[(MAIL.mid, 1)], woken=[MAIL.wake], events=[SetEvent("e", b"1")])],
    ),
    "received second": ("told_of_two", lambda: [_two(taken=[(MAIL.mid, 2)])]),
    "received, then an event, then the end": (
        "told_end_of_two",
        lambda: [_two(taken=[(MAIL.mid, 1)], woken=[MAIL.wake], events=[SetEvent("e", b"1")], change=close())],
    ),
    "cancelled and ended": ("told_end", lambda: [told(woken=[COMMAND], change=close(Status.CANCELLED))]),
}


async def _furnish(store: PostgresStore) -> None:
    """The same in each app: a run with mail and a command, others in several states, one that is awaited."""
    await commit(store, *[own(id, CLAIM, start=STARTS[id]) for id in ("friend", "held", "over", "w")])
    await one(store, unit("held", CLAIM, change=Hold(Reason.POLICY, "")))
    await one(store, unit("over", CLAIM, change=Close(Status.COMPLETED, Outcome.VALUE, b"1", b"wake")))
    await one(store, Unit(key=RunKey("friend", 1), claim=CLAIM, nonce=PARKED, change=Park(None, "", ("awaited",))))
    await one(store, outside(sends=[MAIL]))
    await store.cancel("w", "enough", COMMAND, now=T)


PARKED = tok("parked")
STARTS = {id: start(id, CLAIM) for id in ("friend", "held", "over", "w")}


async def _rows(store: Any) -> Dump:
    """All rows of a store's app, and what is known of it."""

    def mine(r: dict[str, Any]) -> bool:
        return r.pop("app", store.app) == store.app

    return {table: [r for r in rows if mine(r)] for table, rows in (await dump(store)).items()}


@pytest.mark.parametrize("case", CASES)
async def test_alone_or_by_the_batch_is_the_same(
    make: MakeStore, store: Any, sent: Sent, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    form, build = CASES[case]
    batch = build()
    other: Any = await make("batches")
    await _furnish(store)
    await _furnish(other)
    sent.take()
    for seconds in (1, 2):  # the second try is after a lost answer
        receipt = await store.commit(batch, now=T + seconds)
        assert sent.take()[0] == f"alone: {form}"
        with monkeypatch.context() as patch:
            patch.setattr(lone, "fitting", lambda _batch: None)
            expected = await other.commit(batch, now=T + seconds)
        assert receipt == expected
        assert await _rows(store) == await _rows(other)


@pytest.mark.parametrize(
    "batch",
    [
        [ended(parent="friend")],
        [ended(children=("friend",))],
        [told(events=[SetEvent("e", b"1"), SetEvent("f", b"1")])],
        [told(woken=[tok(), tok()])],
        [told(sends=[send("friend")])],
        [told(children=[start("c")])],
        [unit("w", CLAIM, records=[record(1), record(2), record(3)], change=close())],
        [unit("w", CLAIM, records=[record(1), record(2)])],
        [unit("w", CLAIM, change=close())],
        [unit("w", CLAIM, records=[record(1)], change=Park(None, ""))],
        [own("n", CLAIM, records=[record(1)])],
        [own("n", CLAIM, change=close())],
        [own("n", CLAIM, sends=[send("friend")])],
        [outside(sends=[send("friend"), send("friend")])],
        [outside(children=[start("a"), start("b")])],
        [ended(), begun("w")],
        [ended(), begun("a"), begun("b")],
        [begun("a"), begun("b")],
        [ended(), outside(sends=[send("friend")])],
    ],
)
def test_what_is_more_than_one_thing_goes_with_the_batches(batch: list[Unit]) -> None:
    assert lone.fitting(batch) is None


# -- what is refused goes the way of a batch, and has written nothing before


@pytest.mark.parametrize("wrong", ["token", "run", "gone"])
@pytest.mark.parametrize("form", ["end", "end_and_start", "told", "told_end"])
async def test_a_fence_that_fails_refuses_that_run_alone(store: Any, sent: Sent, form: str, wrong: str) -> None:
    claim = await running(store, "w")
    u = unit(
        "nobody" if wrong == "gone" else "w",
        tok("stale") if wrong == "token" else claim,
        2 if wrong == "run" else 1,
        records=[record(1)],
        events=[SetEvent("e", b"1")] if "told" in form else (),
        change=None if form == "told" else close(),
    )
    before = await dump(store)
    sent.take()
    batch = [u, own("n", claim)] if form == "end_and_start" else [u]
    receipt = await store.commit(batch, now=T + 1)
    assert [v.applied for v in receipt.verdicts] == [False, True][: len(batch)]
    assert sent.take()[0] == f"alone: {form}"
    if len(batch) == 1:
        assert await dump(store) == before
    else:
        assert await history(store, "w") == []
        assert (await row(store, "n")).status is Status.RUNNING


@pytest.mark.parametrize("form", ["end", "end_and_start", "told", "told_end"])
async def test_one_that_is_watched_wakes_who_watches(store: Any, sent: Sent, form: str) -> None:
    claim = await running(store, "w", "waiter")
    await one(store, unit("waiter", claim, change=Park(None, "", ("w",))))
    u = unit(
        "w",
        claim,
        records=[record(1)],
        events=[SetEvent("e", b"1")] if "told" in form else (),
        change=None if form == "told" else close(),
    )
    batch = [u, own("n", claim)] if form == "end_and_start" else [u]
    sent.take()
    for _ in range(2):
        assert all(v.applied for v in (await store.commit(batch, now=T + 1)).verdicts)
        assert sent.take()[:1] == [f"alone: {form}"]
    assert [c.row.id for c in await store.claim(want(), now=T + 2)] == ["waiter"]


@pytest.mark.parametrize("form", ["start", "end_and_start"])
async def test_one_that_was_watched_before_it_was_started_wakes_who_watches(store: Any, sent: Sent, form: str) -> None:
    claim = await running(store, "w", "waiter")
    await one(store, park := unit("waiter", claim, change=Park(None, "", ("n",))))
    await one(store, unit("waiter", claim, woken=[park.nonce]))  # that there is no such workflow wakes it, too
    begun, ended = own("n", claim), unit("w", claim, records=[record(1)], change=close())
    sent.take()
    await store.commit([begun] if form == "start" else [begun, ended], now=T + 1)
    assert sent.take() == [f"alone: {form}"]
    assert await store.claim(want(), now=T + 2) == []
    await one(store, unit("n", claim, records=[record(1)], change=close()))
    assert [c.row.id for c in await store.claim(want(), now=T + 3)] == ["waiter"]


async def test_mail_to_one_that_is_watched_is_received_alone(store: Any, sent: Sent) -> None:
    claim = await running(store, "w", "waiter")
    await one(store, unit("waiter", claim, change=Park(None, "", ("w",))))
    mail = send("w")
    await one(store, outside(sends=[mail]))
    sent.take()
    assert (await one(store, unit("w", claim, records=[record(1)], taken=[(mail.mid, 1)], woken=[mail.wake]))).applied
    assert sent.take() == ["alone: told"]
    assert await store.inbox(["w"]) == []


async def test_a_command_to_cancel_that_was_acted_on_is_noted(store: Any, sent: Sent) -> None:
    claim = await running(store, "w")
    await store.cancel("w", "enough", command := tok("command"), now=T)
    sent.take()
    assert (await one(store, unit("w", claim, records=[record(1)], woken=[command]))).applied
    assert sent.take() == ["alone: told", "all"]
    assert (await row(store, "w")).cancel == "enough"
    assert (await store.poll(ME, None, "v1", now=T)).wakes == []


async def test_a_record_that_another_wrote_refuses_the_end(store: Any, sent: Sent) -> None:
    claim = await running(store, "w")
    await one(store, unit("w", claim, records=[record(1)]))
    before = await dump(store)
    sent.take()
    receipt = await commit(store, unit("w", claim, records=[record(1)], change=close()), own("n", claim))
    assert [v.applied for v in receipt.verdicts] == [False, True]
    assert sent.take()[:2] == ["alone: end_and_start", "lock"]
    assert (await dump(store))["history"] == before["history"]
    assert await row(store, "w") == (await store.rows(["w"]))["w"]
    assert (await row(store, "w")).status is Status.RUNNING


async def test_an_id_that_is_taken_does_not_keep_the_other_from_its_end(store: Any, sent: Sent) -> None:
    claim = await running(store, "w", "n")
    sent.take()
    receipt = await commit(store, unit("w", claim, records=[record(1)], change=close()), own("n", claim))
    assert [v.applied for v in receipt.verdicts] == [True, False]
    assert receipt.verdicts[1].exists == {"n": await row(store, "n")}
    assert sent.take() == ["alone: end_and_start"]
    assert (await row(store, "w")).status is Status.COMPLETED


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("form", ["start", "end_and_start"])
async def test_a_second_try_of_a_start_that_another_holds_by_now_does_not_hold_it(store: Any, form: str) -> None:
    claim = await running(store, "w")
    begun = own("n", tok("claim"))
    batch = [begun] if form == "start" else [unit("w", claim, records=[record(1)], change=close()), begun]
    await store.commit(batch, now=T)
    await store.adopt([ME], want(owner=OTHER), now=T)
    *rest, last = (await store.commit(batch, now=T + 1)).verdicts
    assert all(v.applied for v in rest)
    assert not last.applied
    assert last.exists["n"].owner == OTHER


async def test_a_second_try_of_a_start_from_outside_stands_although_it_was_claimed_since(store: Any) -> None:
    u = outside(children=[start("n")])
    first = await one(store, u)
    assert len(await store.claim(want(), now=T)) == 1
    assert await one(store, u) == first


async def test_one_message_of_a_key_arrives_and_the_other_is_no_loss(store: Any, sent: Sent) -> None:
    await queued(store, "w")
    first, second = (outside(sends=[send("w", key="k")]) for _ in range(2))
    sent.take()
    for u in (first, second, first):
        verdict = await one(store, u)
        assert verdict.applied
        assert verdict.undelivered == {}
    assert sent.take() == ["alone: send"] * 3
    assert [m.mid for m in await store.inbox(["w"])] == [first.sends[0].mid]


async def test_mail_that_does_not_arrive_is_said_to_the_sender(store: Any) -> None:
    claim = await running(store, "over")
    await one(store, unit("over", claim, records=[record(1)], change=close()))
    for dest, status in (("over", Status.COMPLETED), ("nobody", None)):
        mail = send(dest)
        assert (await one(store, outside(sends=[mail]))).undelivered == {mail.mid: status}
    assert await store.inbox(["over", "nobody"]) == []
