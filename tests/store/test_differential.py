"""Both dialects, fed the same random stream of batches and calls with the same clock, must say and hold the same.

The stream knows nothing of what is right: it asks SQLite what there is, does something to it, repeats things, lies
about tokens, runs and records. ``PERDURE_SEED`` repeats a failure, ``PERDURE_TEST_STEPS`` makes the stream longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.model.cuts import Cut, mark
from perdure.model.ids import Holding, MessageIds, RunKey
from perdure.model.orders import Goal, MoveOrder, SkipOrder
from perdure.model.records import Incarnation, Kind, Outcome, Record, WorkflowRow
from perdure.model.resets import Exclude, ResetOrder, read_point
from perdure.model.states import CODE, CODES, Cause, Reason, Status, Versioning
from perdure.model.streams import StreamAsk
from perdure.model.trials import Trial
from perdure.model.writes import (
    Append,
    Change,
    Close,
    Continue,
    Decided,
    Delete,
    Hold,
    Park,
    Pause,
    Release,
    Reopen,
    Rewind,
    Send,
    SetEvent,
    Start,
    Unit,
    Verdict,
)
from perdure.query.conditions import Order, where
from perdure.store.asks import ClaimRequest
from perdure.store.base import Store
from perdure.store.cursor import cursor_of
from perdure.store.sqlite import SQLiteStore
from tests.store.build import ME, OTHER, SECOND, Dump, T, close, dump, rewind, start, tok
from tests.store.conftest import make_postgres

# Fixed, so that a landing is judged by what it changed.
pytestmark = pytest.mark.sampled(2)
SEEDS = [int(seed) for seed in os.environ.get("PERDURE_SEED", "1,2,24,25").split(",")]
STEPS = int(os.environ.get("PERDURE_TEST_STEPS", "200"))
OWNERS = (ME, OTHER)
Act = Callable[[Store], Awaitable[Any]]
KINDS = [kind for kind in Kind if kind is not Kind.CUT]  # which only a cut writes
IDS = [f"{c}{n}" for c in "aZé" for n in range(6)]


@pytest.fixture
async def pair(postgres_url: str, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    stores = (SQLiteStore(tmp_path / "test.db", "app"), make_postgres(postgres_url, "app"))
    for store in stores:
        await store.open()
        await store.migrate()
    yield stores
    for store in stores:
        await store.close()


class Stream:
    """Makes the next thing to do, by chance, from what there is."""

    def __init__(self, seed: int, known: Store, *, alone: bool = False) -> None:
        self.alone = alone  # most batches are one or two units of one thing each
        self.rng = random.Random(seed)
        self.fate = random.Random(-seed)  # of its own, so that the rest of a seed's stream stays
        self.known = known
        self.now = T
        self.mids = MessageIds()
        self.said: list[list[Unit]] = []
        self.called: list[tuple[str, Act]] = []
        self.asking: list[ClaimRequest] = []  # by the latest call
        self.rows: list[WorkflowRow] = []
        self.tails: dict[RunKey, int] = {}
        self.mail: dict[str, list[bytes]] = {}
        self.wakes: dict[str, list[bytes]] = {}

    async def look(self) -> None:
        self.now += self.rng.randrange(1, 3 * SECOND)
        self.rows = (await self.known.list(where(), limit=1000)).rows
        histories = await self.known.histories([r.key for r in self.rows])
        self.tails = {key: len(records) for key, records in histories.items()}
        self.mail = {}
        for m in await self.known.inbox(IDS):
            self.mail.setdefault(m.dest, []).append(m.mid)
        self.wakes = {}
        for owner in OWNERS:
            for w in (await self.known.poll(owner, [], now=self.now)).wakes:
                self.wakes.setdefault(w.dest, []).append(w.nonce)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def id(self) -> str:
        return self.rng.choice(IDS)

    # -- batches

    def batch(self) -> list[Unit]:
        if self.said and self.chance(0.15):
            return self.said[-1]  # its answer was lost, or so it seems; nothing later was sent
        running = [r for r in self.rows if r.status is Status.RUNNING and self.chance(0.5)]
        units = [self.unit(r) for r in running[:5]]
        taken = {u.key.id for u in units}
        for _ in range(self.rng.randrange(3)):
            if (id := self.id()) not in taken:
                taken.add(id)
                units.append(self.own(id))
        if self.chance(0.5):
            units.append(Unit(key=RunKey("", 0), nonce=tok("out"), children=self.children(), sends=self.sends()))
        # Whether a start comes before another unit's start of the same id, mail or end, the contract leaves open.
        own = {u.start.id for u in units if u.start is not None}
        begun: set[str] = set()
        for u in units:
            u.children = [c for c in u.children if c.id not in begun and (c.id not in own or c.id == u.key.id)]
            begun.update(c.id for c in u.children)
        begun.update(own)
        parents = {u.nonce: {s.parent for s in (u.start, *u.children) if s is not None} for u in units}
        for u in units:
            mine = {u.key.id, *(c.id for c in u.children)}
            if isinstance(u.change, Close):
                later = tuple(id for id in u.change.children if id in mine or id not in begun)
                family = u.change.family and not any(u.key.id in of for by, of in parents.items() if by is not u.nonce)
                u.change = msgspec.structs.replace(u.change, children=later, family=family)
            u.sends = [m for m in u.sends if m.dest in mine or m.dest not in begun]
        keyed: set[tuple[str, str]] = set()  # nor which of two messages of one key arrives
        for u in units:
            said = {(m.dest, m.key) for m in u.sends if m.key is not None}
            u.sends = [m for m in u.sends if m.key is None or (m.dest, m.key) not in keyed]
            keyed.update(said)
        self.rng.shuffle(units)
        if self.alone and self.fate.random() < 0.8:
            units = [self.pared(u) for u in units][: self.fate.choice([1, 1, 2])]
        self.said.append(units)
        return units

    def pared(self, u: Unit) -> Unit:
        """What of a unit somebody may wait for alone."""
        if u.decision is not None:
            return u
        if u.start is not None:
            return Unit(key=u.key, claim=u.claim, nonce=u.nonce, version=u.version, start=u.start)
        if u.claim is None:
            sends = u.sends[: self.fate.randrange(2)]
            return Unit(key=u.key, nonce=u.nonce, sends=sends, children=() if sends else u.children[:1])
        records = u.records[: self.fate.choice([1, 1, 2])]
        change = self.fate.choice([None, u.change, close(self.fate.choice([Status.COMPLETED, Status.FAILED]))])
        return Unit(
            key=u.key,
            claim=u.claim,
            nonce=u.nonce,
            version=u.version,
            records=records,
            events=u.events[:1],
            appends=u.appends,
            taken=[(mid, records[-1].seq) for mid, _ in u.taken[:1]] if records else (),
            woken=u.woken[:1],
            change=change,
        )

    def own(self, id: str) -> Unit:
        claim = tok("claim")
        timeout = self.rng.choice([None, SECOND])
        s = start(id, claim, owner=self.rng.choice(OWNERS), timeout=timeout, parent=self.parent())
        if self.chance(0.1):  # held by nobody
            s = start(id, timeout=timeout, parent=s.parent)
            return Unit(key=RunKey(id, 1), nonce=tok("unit"), version="v1", start=s, sends=self.sends())
        return Unit(
            key=RunKey(id, 1),
            claim=claim,
            nonce=tok("unit"),
            version="v1",
            start=s,
            records=self.records(0),
            events=self.events(),
            appends=self.appends(),
            sends=self.sends(),
            children=self.children(id),
            change=self.change(id, 1, claim) if self.chance(0.3) else None,
        )

    def unit(self, r: WorkflowRow) -> Unit:
        """What a run writes; now and then what recovery decided about it."""
        unit = self.written(r)
        name = self.fate.choice([*[None] * 12, "resume", "hold", "move_to", "delete"])
        if name is None:
            return unit
        decision = Decided(
            cause=self.fate.choice([Cause.CRASH, Cause.ERROR]), decision=name, policy="p", because="b",
            parameters=self.fate.choice([None, b"{}"]), evidence=self.fate.choice([b"{}", b'{"attempt":1}']),
            executor="e",
        )  # fmt: skip
        if name in ("delete", "move_to"):
            change = Delete() if name == "delete" else Release("v3")
            return Unit(
                key=unit.key, claim=unit.claim, nonce=unit.nonce, version="v1", change=change, decision=decision
            )
        return msgspec.structs.replace(unit, decision=decision)

    def written(self, r: WorkflowRow) -> Unit:
        claim, run = r.claim or b"", r.run
        lie = self.rng.random()
        if lie < 0.05:
            claim = tok("stale")
        elif lie < 0.1:
            run += 1
        mail, wakes = self.mail.get(r.id, []), self.wakes.get(r.id, [])
        tail = self.tails[r.key]
        if tail and 0.1 < lie < 0.15:
            tail -= 1  # another's record is there
        records = self.records(tail) or self.records(tail)
        return Unit(
            key=RunKey(r.id, run),
            claim=claim,
            nonce=tok("unit"),
            version=self.rng.choice(["v1", "v2"]),
            records=records,
            events=self.events(),
            appends=self.appends(),
            sends=self.sends(),
            children=self.children(r.id),
            taken=[(mid, records[-1].seq) for mid in mail if self.chance(0.5)] if records else (),
            woken=[nonce for nonce in wakes if self.chance(0.5)],
            change=self.change(r.id, r.run, claim) if self.chance(0.5) else None,
        )

    def records(self, tail: int) -> list[Record]:
        return [
            Record(seq, str(seq), self.rng.choice(KINDS), "step", self.now, b"fp", Outcome.VALUE, b'{"v":1}')
            for seq in range(tail + 1, tail + 1 + self.rng.randrange(4))
        ]

    def events(self) -> list[SetEvent]:
        names = [name for name in ("e", "f", "e") if self.chance(0.2)]
        return [SetEvent(name, str(self.rng.randrange(4)).encode()) for name in names]

    def appends(self) -> list[Append]:
        """Values of few names and places, so that many meet what is there already; paths of records among them."""
        marks = [
            (self.fate.choice("st"), str(self.fate.randrange(1, 6)), self.fate.randrange(3))
            for _ in range(self.fate.choice([0, 0, 0, 1, 2, 5]))
        ]
        closes = self.fate.random() < 0.05
        return [Append(*mark, str(self.fate.randrange(9)).encode()) for mark in dict.fromkeys(marks)] + [
            Append("s", "end", 0, None) for _ in range(closes)
        ]

    def sends(self) -> list[Send]:
        known = self.chance(0.2)  # of all: whether a destination needs a check cannot depend on the message
        return [
            Send(
                self.id(),
                self.mids(),
                "t",
                b'"hi"',
                tok("wake"),
                key=self.rng.choice([None, None, "k", "l"]),
                sender="s",
                known=known,
            )
            for _ in range(self.rng.choice([0, 0, 1, 2]))
        ]

    def children(self, but: str = "") -> list[Start]:
        ids = {self.id() for _ in range(self.rng.choice([0, 0, 1, 2]))} - {but}
        more = [
            {},
            {"status": Status.SCHEDULED, "delay": 2 * SECOND, "timeout": SECOND},
            {"status": Status.SCHEDULED, "until": self.now + SECOND, "deadline": self.now + SECOND},
        ]
        return [start(id, parent=self.parent(), **self.rng.choice(more)) for id in sorted(ids)]

    def parent(self) -> str | None:
        return self.rng.choice(self.rows).id if self.rows and self.chance(0.5) else None

    def change(self, id: str, run: int, claim: bytes) -> Change:
        ends = [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
        parent = self.parent()
        others = tuple(i for i in IDS if self.chance(0.1) and i not in (id, parent))
        return self.rng.choice(
            [
                lambda: close(self.rng.choice(ends), parent=parent, children=others, family=self.fate.random() < 0.3),
                lambda: Park(self.rng.choice([None, self.now + 2 * SECOND]), "waiting", others),
                lambda: Hold(self.rng.choice(list(Reason)), "held"),
                lambda: Release(anew=self.fate.random() < 0.3),
                lambda: Continue(start(id, run=run + 1), tok("wake")),
                lambda: Continue(start(id, claim, run=run + 1), tok("wake")),
                lambda: self.rewind(id, run, self.rng.choice([None, claim])),
            ]
        )()

    def rewind(self, id: str, run: int, claim: bytes | None) -> Rewind:
        keep = self.rng.randrange(self.tails.get(RunKey(id, run), 0) + 1)
        timeout = self.rng.choice([None, SECOND])
        began = self.rng.choice([None, self.now - SECOND])
        following = start(id, claim, run=run + 1, timeout=timeout, began=began)
        decision = Record(keep + 2, "", Kind.DECISION, "run from", self.now, data=b"{}")
        then = self.rng.choice([(), (decision,)])
        return rewind(
            id, keep, run=run, next=following, attempts=self.rng.randrange(3), then=then, uncancel=self.chance(0.5)
        )

    # -- calls

    def call(self) -> tuple[str, Act]:  # long: one table of every call, and what fills it
        if self.called and self.chance(0.1):
            if self.asking:  # never under the same token twice
                self.asking[0] = msgspec.structs.replace(self.asking[0], token=tok("claim"))
            return self.called[-1]  # its answer was lost, or so it seems
        now, id, nonce = self.now, self.id(), tok("n")
        owner, other = self.rng.choice(OWNERS), self.rng.choice(OWNERS)
        fresh, want = self.request(owner)
        asking = self.asking = [want]
        lease = self.rng.randrange(1, 5) * SECOND
        held = [self.holding(r) for r in self.rows if r.owner == owner and self.chance(0.7)]
        keys = [r.key for r in self.rows if self.chance(0.3)]
        who = Incarnation(id=owner, executor="e", started=0)
        latest = next((r for r in self.rows if r.id == id), None)
        old = RunKey(id, 1 if latest is None else latest.run)
        following = start(id, run=old.run + 1)
        beats, series = self.rng.randrange(3), self.rng.randrange(3)
        after = self.fate.choice(["", "", self.id()])
        death, spared, heir = self.chance(0.5), self.rng.sample(OWNERS, 1), self.rng.choice([None, "e"])
        reasons = self.rng.sample(list(Reason), 2)
        # The true last seq: the row's own is behind while it runs, in each dialect by its own.
        seen = latest or WorkflowRow(
            id=id, run=1, lineage=b"", name="", status=Status.QUEUED, version="", created=0, updated=0
        )
        seen = msgspec.structs.replace(seen, last_seq=self.tails.get(seen.key, 0))
        if self.chance(0.1):
            seen = msgspec.structs.replace(seen, claim=tok("stale"))
        back = self.rewind(id, old.run, None)
        order = Reopen(
            nonce=tok("order"), verb="resume", shown="by tests", at=now,
            version=self.rng.choice([None, "v3"]), at_once=self.chance(0.5), back=self.chance(0.5),
        )  # fmt: skip
        stop = self.rng.choice([None, *[Pause(nonce=tok("pause"), shown="by tests", at=now)] * 3])
        start_of_fork = start(self.id(), began=back.next.began, timeout=back.next.timeout)
        cut = mark(Cut(id, old.run, back.keep), "fork", at=now)
        end = self.rng.choice([None, "by fork"])
        some = [r for r in self.rows if self.chance(0.3)]
        trials = [
            Trial(id=r.id, run=r.run, last_seq=r.last_seq, version="v3", reason="raised", detail="") for r in some
        ]
        moves, resets, skipped = self.orders(id)
        calls: list[tuple[str, Act]] = [
            ("claim", lambda s: s.claim(asking[0], now=now)),
            ("claim", lambda s: s.claim(asking[0], now=now)),
            ("adopt", lambda s: s.adopt([other], asking[0], death=death, spared=spared, now=now)),
            ("adopt", lambda s: s.adopt([other], asking[0], suspects=True, death=death, spared=spared, now=now)),
            ("with_suspects", lambda s: s.with_suspects(OWNERS, want.version)),
            ("roll_call", lambda s: rolled(s, now)),
            ("hand_over", lambda s: s.hand_over([other], heir)),
            ("drain", lambda s: s.drain(other)),
            ("reclaim", lambda s: s.reclaim(keys, asking[0], now=now)),
            ("cancel", lambda s: s.cancel(id, "enough", nonce, now=now)),
            ("terminate", lambda s: s.terminate(id, "by hand", nonce, now=now)),
            ("replace", lambda s: s.replace(old, following, nonce, now=now)),
            ("rewind", lambda s: s.rewind(seen, back, now=now)),
            ("rewind", lambda s: s.rewind(seen, back, now=now)),
            ("reopen", lambda s: s.reopen(seen, order, now=now)),
            *[("pause", lambda s: s.pause(id, stop, now=now))] * 2,
            ("fork", lambda s: s.fork(seen.key, start_of_fork, cut, end=end, now=now)),
            *[("move", lambda s: s.move(moves, now=now))] * 2,
            *[("reset", lambda s: s.reset(resets, now=now))] * 2,
            ("skip", lambda s: s.skip(skipped, now=now)),
            ("release_held", lambda s: s.release_held(reasons, "v1", now=now)),
            ("poll", lambda s: s.poll(owner, held, "v1", fresh=fresh, after=after, now=now)),
            ("register", lambda s: s.register(who, lease, now=now)),
            ("heartbeat", lambda s: s.heartbeat(owner, lease, now=now)),
            ("bury", lambda s: s.bury(OWNERS, now=now)),
            ("bury", lambda s: s.bury(OWNERS, expired_only=False, beats={owner: beats}, now=now)),
            ("leave", lambda s: s.leave(other)),
            ("new_series", lambda s: s.new_series(owner, series)),
            ("cancel where nobody runs it", lambda s: s.cancel(id, "enough", nonce, unserved="v1", now=now)),
            ("adopt strays", lambda s: s.adopt_strays(some, "v3", now=now)),
            ("release orphans", lambda s: s.release_orphans([other], ["v3"], 100, now=now)),
            ("note trials", lambda s: s.note_trials(trials, now=now)),
        ]
        self.called.append(self.rng.choice(calls))
        return self.called[-1]

    def orders(self, id: str) -> tuple[list[MoveOrder], list[ResetOrder], SkipOrder]:
        """Of an operator, about some workflows at once."""
        rng, at = self.rng, self.now
        ids = sorted({id, *(self.id() for _ in range(rng.randrange(3)))})
        goals = [Goal(Versioning.PINNED, "v3"), Goal(Versioning.PINNED, "v1", once=True)]
        goals += [Goal(Versioning.AUTO_UPGRADE, "v3"), Goal(Versioning.UNDECLARED)]
        goal, key = rng.choice(goals), rng.choice(["k", tok("key").decode()])
        moves = [MoveOrder(id=one, goal=goal, nonce=tok("order"), shown="by tests", at=at) for one in ids]
        points = ["first", "last", "#1", "#2", "before-version:v1", "1"]
        exclude: Exclude = rng.choice(["none", "messages", "all"])
        point, aim = read_point(rng.choice(points)), rng.choice([None, goal])
        resets = [
            ResetOrder(
                id=one, root=one, point=point, exclude=exclude, goal=aim, key=key, nonce=tok("reset"),
                wake=tok("wake"), by="tests", reason="", at=at,
            )
            for one in ids
        ]  # fmt: skip
        skipped = SkipOrder(
            id=id, step=rng.choice(["1", "2", "step"]), data=b"1", digest=b"d", nonce=tok("skip"), shown="", at=at
        )
        return moves, resets, skipped

    def request(self, owner: bytes) -> tuple[bool, ClaimRequest]:
        fresh, suspect = self.fate.random() < 0.8, self.fate.random() < 0.7
        version = self.rng.choice(["", "v1", "v3"])
        token = tok("claim")
        return fresh, ClaimRequest(
            owner=owner, token=token, version=version, limit=100, fresh=fresh, suspect=suspect,
            series=self.fate.choice([None, None, 0, 1, 2]), after=self.fate.choice(["", "", self.id()]),
        )  # fmt: skip

    def holding(self, r: WorkflowRow) -> Holding:
        """As its holder knows it; or as one who held it before."""
        return Holding(*r.key, r.claim if self.chance(0.8) else tok("claim"))

    def reads(self) -> list[tuple[str, Act]]:
        now, keys = self.now, [r.key for r in self.rows]
        past = [RunKey(key.id, run) for key in keys for run in range(1, key.run + 1)]
        held = [self.holding(r) for r in self.rows[::2]]
        statuses = frozenset(s for s in Status if self.chance(0.5))
        some, parent = frozenset(self.rng.sample(IDS, 5)), self.parent()
        asks = [StreamAsk(id, name, p, chain, 2) for id in IDS for name in "st" for p in (0, 2) for chain in range(3)]
        cursor = cursor_of(Order(), self.rng.choice(self.rows).created, self.id(), 1, now) if keys else None
        return [
            ("rows", lambda s: s.rows(IDS)),
            ("histories", lambda s: s.histories(past)),
            ("inbox", lambda s: s.inbox(IDS)),
            ("inputs", lambda s: s.inputs(past)),
            ("ended", lambda s: s.ended(IDS)),
            ("fates", lambda s: s.fates(IDS)),
            ("events", lambda s: s.events([(id, name) for id in IDS for name in "ef"])),
            ("streams", lambda s: s.streams(asks)),
            ("records after", lambda s: s.records_after(next(iter(past), RunKey(IDS[0], 1)), 1, 3)),
            ("list", lambda s: s.list(where(statuses=statuses), limit=1000)),
            ("list by id", lambda s: s.list(where(statuses=statuses, ids=some), limit=1000)),
            ("list by name and parent", lambda s: s.list(where(names=["flow"], parent=parent), limit=1000)),
            ("list a page", lambda s: s.list(where(), limit=3, cursor=cursor, now=now)),
            ("decisions", lambda s: s.decisions(IDS)),
            ("incarnations", lambda s: s.incarnations()),
            ("strays", lambda s: s.strays(["v1", "v3"], None, 1000)),
            ("strays not tried", lambda s: s.strays(["v1"], "v3", 1000)),
            ("strays told to cancel", lambda s: s.strays_told_to_cancel(["v1", "v3"])),
            ("trials", lambda s: s.trials(IDS)),
            ("poll", lambda s: s.poll(ME, held, "v1", now=now)),
            *[("run", lambda s, key=key: s.run(key)) for key in past[:5]],
        ]


async def rolled(store: Store, now: int) -> Any:
    """Without what only a server knows."""
    return msgspec.structs.replace(await store.roll_call(now=now), connected=None, session=0)


def plain(answer: Any) -> Any:
    """An answer in a form to compare, without an order that nobody promises."""
    if isinstance(answer, msgspec.Struct):
        return {name: plain(getattr(answer, name)) for name in answer.__struct_fields__}
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items()}
    if isinstance(answer, list):
        items = [plain(value) for value in answer]
        if answer and isinstance(answer[0], Verdict):
            return items
        # No order is promised of claims beyond the time due, nor of messages between destinations, nor of wakes.
        return sorted(items, key=repr)
    return answer


def comparable(tables: Dump) -> Dump:
    """Tables without what a dialect may do as it likes: wakes of those who hear none, the tail of a run under way."""
    status = {r["id"]: CODES[r["status"]] for r in tables["workflow"]}
    paused = {r["id"] for r in tables["workflow"] if r["reason"] == Reason.PAUSED}  # may have been queued before
    hear = {CODE[s] for s in (Status.RUNNING, Status.WAITING, Status.HELD)}

    def heard(w: dict[str, Any]) -> bool:
        s = status.get(w["dest"])
        return s is not None and s.open and (w["cancel"] is not None or (CODE[s] in hear and w["dest"] not in paused))

    rows = [{**r, "last_seq": 0} if CODES[r["status"]] is Status.RUNNING else r for r in tables["workflow"]]
    return {**tables, "workflow": rows, "wake": [w for w in tables["wake"] if heard(w)]}


def differences(a: Any, b: Any) -> str:
    """Where two answers or tables part, in few words."""
    if isinstance(a, dict) and isinstance(b, dict):
        return "; ".join(f"{k}: {differences(a.get(k), b.get(k))}" for k in {**a, **b} if a.get(k) != b.get(k))
    if isinstance(a, list) and isinstance(b, list):
        mine, theirs = [x for x in a if x not in b], [x for x in b if x not in a]
        if len(mine) == len(theirs):
            return "; ".join(f"[{differences(x, y)}]" for x, y in zip(mine, theirs, strict=True))
        return f"only sqlite {mine}, only postgres {theirs}"
    if isinstance(a, WorkflowRow) and isinstance(b, WorkflowRow):
        return f"{a.id}: {differences(msgspec.structs.asdict(a), msgspec.structs.asdict(b))}"
    return f"sqlite {a}, postgres {b}"


@pytest.mark.postgres
@pytest.mark.parametrize("alone", [False, True], ids=["batches", "alone"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_both_dialects_say_and_hold_the_same(pair: tuple[Store, Store], seed: int, alone: bool) -> None:
    print(f"PERDURE_SEED={seed}")
    first, second = pair
    stream = Stream(seed, first, alone=alone)
    for step in range(STEPS):
        await stream.look()
        if stream.chance(0.6):
            units, now = stream.batch(), stream.now
            what, act = "commit", lambda s, units=units, now=now: s.commit(units, now=now)
        else:
            what, act = stream.call()
        a, b = plain(await act(first)), plain(await act(second))
        where = f"PERDURE_SEED={seed}, step {step}: {what}"
        assert a == b, f"{where}: {differences(a, b)}"
        if step % 10 == 9 or step == STEPS - 1:
            tables = [comparable(await dump(store)) for store in pair]
            for table, rows in tables[0].items():
                assert rows == tables[1][table], f"{where}: {table}: {differences(rows, tables[1][table])}"
            await stream.look()
            for name, read in stream.reads():
                a, b = plain(await read(first)), plain(await read(second))
                assert a == b, f"{where}: {name}: {differences(a, b)}"
