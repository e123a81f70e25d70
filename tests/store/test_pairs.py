"""All pairs of write kinds of one workflow in one batch, each seen to have had its effect (ENGINE rule 2)."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from perdure.model import records
from perdure.model.ids import RunKey
from perdure.model.states import Reason, Status
from perdure.model.writes import Continue, GiveUp, Hold, Park, Release, SetEvent, Unit
from perdure.store.base import Store
from tests.store.build import (
    ME,
    Dump,
    T,
    append,
    close,
    dump,
    history,
    one,
    outside,
    own,
    queued,
    record,
    rewind,
    row,
    running,
    send,
    start,
    tok,
    unit,
    want,
)

MAIL = send("w")


class Kind(NamedTuple):
    apply: Callable[[Unit], None]
    seen: Callable[[Store], Awaitable[bool]]


def _record(u: Unit) -> None:
    u.records = [*u.records, record(1)]


def _event(u: Unit) -> None:
    u.events = [*u.events, SetEvent("e", b"1")]


def _append(u: Unit) -> None:
    u.appends = [*u.appends, append("1", "pair")]


def _send(u: Unit) -> None:
    u.sends = [*u.sends, send("friend", topic="pair")]


def _keyed(u: Unit) -> None:
    u.sends = [*u.sends, send("friend", topic="keyed", key="k")]


def _to_self(u: Unit) -> None:
    u.sends = [*u.sends, send("w", topic="self")]


def _child(u: Unit) -> None:
    u.children = [*u.children, start("child", parent="w", parent_run=1)]


def _mail_to_child(u: Unit) -> None:
    u.sends = [*u.sends, send("child", topic="child", known=True)]


def _give_up(u: Unit) -> None:
    u.given_up = [GiveUp("kid", tok("wake"), "pair")]


def _taken(u: Unit) -> None:
    u.taken = [*u.taken, (MAIL.mid, 1)]


def _woken(u: Unit) -> None:
    u.woken = [*u.woken, MAIL.wake]


def _close(u: Unit) -> None:
    u.change = close(parent="friend")


def _park(u: Unit) -> None:
    u.change = Park(T + 9, "pair", ("friend",))


def _hold(u: Unit) -> None:
    u.change = Hold(Reason.POLICY, "pair")


def _release(u: Unit) -> None:
    u.change = Release()


def _continue(u: Unit) -> None:
    u.change = Continue(start("w", run=2), tok("wake"))


def _rewind(u: Unit) -> None:
    u.change = rewind("w", 0)


async def _mine(store: Store) -> Dump:
    return {table: [r for r in rows if r["app"] == store.app] for table, rows in (await dump(store)).items()}


async def _mailed(store: Store, dest: str, topic: str) -> bool:
    return [m.topic for m in await store.inbox([dest])].count(topic) == 1


async def _is(store: Store, status: Status) -> bool:
    return (await row(store, "w")).status is status


async def _wake_gone(store: Store) -> bool:
    return all(w["nonce"] != MAIL.wake for w in (await _mine(store))["wake"])


async def _has_event(store: Store) -> bool:
    return any((e["id"], e["name"]) == ("w", "e") for e in (await _mine(store))["event"])


async def _has_value(store: Store) -> bool:
    return [(v["id"], v["place"]) for v in (await _mine(store))["stream_value"]] == [("w", 0)]


async def _has_record(store: Store) -> bool:
    return len((await store.histories([RunKey("w", 1)]))[RunKey("w", 1)]) == 1


async def _friend_woken(store: Store) -> bool:
    poll = await store.poll(ME, [], "v1", now=T)
    return any(w.dest == "friend" for w in poll.wakes)


async def _closed(store: Store) -> bool:
    return "w" in await store.ended(["w"]) and await _friend_woken(store)


async def _watches(store: Store) -> bool:
    watches = (await _mine(store))["watch"]
    return [(w["target"], w["waiter"]) for w in watches] == [("friend", "w")] and await _is(store, Status.WAITING)


async def _child_there(store: Store) -> bool:
    return "child" in await store.rows(["child"])


async def _continued(store: Store) -> bool:
    past = await store.run(RunKey("w", 1))
    return past is not None and past.status is Status.CONTINUED and (await row(store, "w")).run == 2


async def _rewound(store: Store) -> bool:
    past = await store.run(RunKey("w", 1))
    if past is None or past.status is not Status.SUPERSEDED:
        return False
    return [r.kind for r in await history(store, "w", 2)] == [records.Kind.CUT] and (await row(store, "w")).run == 2


async def _mail_taken(store: Store) -> bool:
    if (await row(store, "w")).run == 2 and (await store.run(RunKey("w", 1))).status is Status.SUPERSEDED:  # type: ignore[union-attr]
        return [m.mid for m in await store.inbox(["w"])] == [MAIL.mid]  # the record that took it was cut off
    return all(m.mid != MAIL.mid for m in await store.inbox(["w"]))


async def _kid_told(store: Store) -> bool:
    return [(w["dest"], w["cancel"]) for w in (await _mine(store))["wake"] if w["cancel"]] == [("kid", "pair")]


KINDS: dict[str, Kind] = {
    "record": Kind(_record, _has_record),
    "event": Kind(_event, _has_event),
    "append": Kind(_append, _has_value),
    "send": Kind(_send, lambda s: _mailed(s, "friend", "pair")),
    "keyed": Kind(_keyed, lambda s: _mailed(s, "friend", "keyed")),
    "to self": Kind(_to_self, lambda s: _mailed(s, "w", "self")),
    "child": Kind(_child, _child_there),
    "mail to child": Kind(_mail_to_child, lambda s: _mailed(s, "child", "child")),
    "give up": Kind(_give_up, _kid_told),
    "taken": Kind(_taken, _mail_taken),
    "woken": Kind(_woken, _wake_gone),
    "close": Kind(_close, _closed),
    "park": Kind(_park, _watches),
    "hold": Kind(_hold, lambda s: _is(s, Status.HELD)),
    "release": Kind(_release, lambda s: _is(s, Status.QUEUED)),
    "continue": Kind(_continue, _continued),
    "rewind": Kind(_rewind, _rewound),
}
CHANGES = {"close", "park", "hold", "release", "continue", "rewind"}
PAIRS = [p for p in itertools.combinations(KINDS, 2) if not set(p) <= CHANGES]


@pytest.mark.parametrize("begun", [True, False], ids=["begun before", "begun here"])
async def test_pairs_of_writes_of_one_workflow_in_one_batch(
    make_store: Callable[[str], Awaitable[Store]], begun: bool
) -> None:
    """Each pair in an app of its own: they share a database, and see nothing of each other."""
    for n, pair in enumerate(PAIRS):
        if not begun and {"taken", "woken"} & set(pair):
            continue  # a run that begins here can have taken nothing yet
        store = await make_store(f"app{n}")
        await running(store, "friend")
        await one(store, outside(children=[start("kid", parent="w"), start("other")]))
        if begun:
            claim = await running(store, "w")
            await one(store, outside(sends=[MAIL]))
            u = unit("w", claim)
        else:
            claim = tok("claim")
            u = own("w", claim)
        for name in pair:
            KINDS[name].apply(u)
        verdict = await one(store, u)
        assert verdict.applied, pair
        assert verdict.undelivered == {}, pair
        for name in pair:
            assert await KINDS[name].seen(store), (pair, name)
        await store.close()


async def test_pairs_of_writes_between_two_workflows_in_one_batch(store: Store) -> None:
    """Whatever one workflow does to another in the batch in which the other moves, nobody sleeps with mail."""
    n = 0
    for change in ("close", "park", "hold", "release", "continue", "rewind", "record"):
        for reverse in (False, True):
            n += 1
            a, b = f"a{n}", f"b{n}"
            claim = await running(store, a, b)
            u = unit(a, claim)
            KINDS[change].apply(u)
            if isinstance(u.change, Continue):
                u.change = Continue(start(a, run=2), tok("wake"))
            elif change == "rewind":
                u.change = rewind(a, 0)
            elif isinstance(u.change, Park):
                u.change = Park(None, "mail", (b,))
            elif change == "close":
                u.change = close(parent=b)
            mail = send(a)
            v = unit(b, claim, records=[record(1)], sends=[mail], events=[SetEvent("e", b"1")])
            receipt = await store.commit([v, u] if reverse else [u, v], now=T)
            assert all(x.applied for x in receipt.verdicts)
            assert all(x.undelivered == {} for x in receipt.verdicts), "the mail came before the end, by any order"
            assert [m.mid for m in await store.inbox([a])] == [mail.mid]
            status = (await row(store, a)).status
            if status in (Status.WAITING, Status.QUEUED):
                claimable = (await store.poll(None, [], "v1", now=T)).claimable
                assert claimable == T, change
            await store.terminate(a, "", tok("n"), now=T)
            await store.terminate(b, "", tok("n"), now=T)


@pytest.mark.parametrize("children", [[], ["c"]], ids=["alone", "with a child"])
async def test_mail_to_a_run_that_begins_and_ends_in_one_batch_arrives(store: Store, children: list[str]) -> None:
    """Its own, and that of another: it was open for a moment of the batch, whichever statement the mail goes in."""
    mails = [send("w"), send("w")]
    batch = [
        own("w", tok("claim"), children=[start(id) for id in children], sends=mails[:1], change=close(Status.FAILED)),
        outside(children=[start(id) for id in children], sends=mails[1:]),
    ]
    for _ in range(2):  # the answer to the first was lost
        receipt = await store.commit(batch, now=T)
        assert [v.undelivered for v in receipt.verdicts] == [{}, {}]
        assert [m.mid for m in await store.inbox(["w"])] == [m.mid for m in mails]


async def test_two_workflows_close_at_once_as_parent_and_child(store: Store) -> None:
    claim = await running(store, "parent", "child")
    receipt = await store.commit(
        [
            unit("parent", claim, change=close(children=("child",))),
            unit("child", claim, change=close(parent="parent")),
        ],
        now=T,
    )
    assert [v.applied for v in receipt.verdicts] == [True, True]
    assert set(await store.ended(["parent", "child"])) == {"parent", "child"}
    await queued(store, "next")
    assert [c.row.id for c in await store.claim(want(), now=T)] == ["next"]
