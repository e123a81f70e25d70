"""The same of queues: both dialects, fed the same stream of starts, claims, changes and keys, say and hold the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.model.ids import RunKey
from perdure.model.queues import DELAYED, Limits, QueueChange
from perdure.model.states import Status, Versioning
from perdure.model.writes import Start
from perdure.store.base import Store
from perdure.store.lines import Declared, Deduplicated, LineRequest
from tests.store.build import OTHER, SECOND, dump, start, tok
from tests.store.test_differential import IDS, OWNERS, STEPS, Act, Stream, comparable, differences, pair, plain

pytestmark = pytest.mark.sampled(1)
__all__ = ["pair"]  # a fixture of that module
QUEUES = ("q", "r")
MANY = [f"{id}{n}" for n in ["", *range(2)] for id in IDS]  # an id is used up when its workflow has ended
SEEDS = [int(seed) for seed in os.environ.get("PERDURE_SEED", "2,3,4,6").split(",")]


class QueueStream(Stream):
    """Half of what it does is about queues. No two items have one priority: who is first among equals is not told."""

    def id(self) -> str:
        return self.rng.choice(MANY)

    def children(self, *args: Any) -> list[Start]:
        return [self.lined(child) if self.chance(0.6) else child for child in super().children(*args)]

    def lined(self, child: Start) -> Start:
        return msgspec.structs.replace(
            child, queue=self.fate.choice(QUEUES), partition=self.fate.choice(["", "", "a", "b"]),
            priority=MANY.index(child.id), expires=self.fate.choice([None, None, 3 * SECOND]),
            version=self.fate.choice(["", "v1", "v3"]),
        )  # fmt: skip

    def line(self, queue: str) -> tuple[str, str]:
        """Whose line to claim from, and by what version: most often one in which somebody stands."""
        stand = [r for r in self.rows if r.lane not in (None, DELAYED)]
        if stand and self.fate.random() < 0.8:
            r = self.fate.choice(stand)
            return r.queue or queue, r.version or "v1"
        return queue, self.fate.choice(["v1", "v3"])

    def call(self) -> tuple[str, Act]:
        if self.fate.random() < 0.5:
            return super().call()
        now, queue, nonce = self.now, self.fate.choice(QUEUES), tok("n")
        limit = self.fate.choice([1, 3, 100])
        asked, version = self.line(queue)
        want = LineRequest(
            queue=asked, owner=self.fate.choice(OWNERS), token=tok("claim"), version=version, limit=limit,
            mine=self.fate.randrange(3), partitioned=self.fate.choice([True, True, False]),
            series=self.fate.choice([*[None] * 8, 0, 2]),
        )  # fmt: skip
        found = [
            Declared(
                id=r.id, queue=queue, versioning=self.fate.choice(list(Versioning)),
                since=self.fate.choice([None, now - SECOND]), versioned=self.fate.choice([True, False]),
            )
            for r in self.rows if self.chance(0.5)
        ]  # fmt: skip
        token = next((r.claim for r in self.rows if r.status is Status.RUNNING and r.claim is not None), tok("none"))
        number, few = self.fate.choice([None, 1, 2, 4]), self.fate.choice([None, 1, 2])
        limits = self.fate.choice([
            {"concurrency": number}, {"worker_concurrency": number}, {"partition_concurrency": few},
            {"rate_limit": number, "rate_period": None if number is None else 5 * SECOND},
            {"partition_rate_limit": few, "partition_rate_period": None if few is None else 5 * SECOND},
        ])  # fmt: skip
        change = QueueChange(limits=limits, paused=self.fate.choice([None, *[False] * 4, True]))
        new = self.lined(start(self.id(), status=Status.SCHEDULED, delay=SECOND))
        debounce, longest = self.fate.choice([(None, None), (SECOND, None), (SECOND, 2 * SECOND)])
        how = Deduplicated(key=self.fate.choice("kl"), debounce=debounce, debounce_max=longest)
        latest = next((RunKey(r.id, r.run) for r in self.rows if r.id == new.id), None)
        over = Deduplicated(key=how.key, over=latest)
        calls: list[tuple[str, Act]] = [
            *[("claim_line", lambda s: s.claim_line(want, now=now))] * 6,
            ("line_up", lambda s: s.line_up(["", "v1"], limit, now=now)),
            ("line_up_declared", lambda s: s.line_up_declared(found, token, now=now)),
            ("expire", lambda s: s.expire(100, nonce, now=now)),
            *[("start_once", lambda s: s.start_once(new, how, now=now))] * 2,
            *[("start_once over", lambda s: s.start_once(new, over, now=now))] * 2,
            ("change_queue", lambda s: s.change_queue(queue, change, now=now)),
            ("declare_queues", lambda s: s.declare_queues({queue: Limits(concurrency=number)}, now=now)),
            ("poll", lambda s: s.poll(OTHER, [], "v1", now=now)),
        ]
        self.called.append(self.fate.choice(calls))
        return self.called[-1]


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_both_dialects_let_the_same_through(pair: tuple[Store, Store], seed: int, tmp_path: Path) -> None:
    sqlite, postgres = pair
    stream = QueueStream(seed, sqlite)
    let = 0
    for store in pair:
        await store.make_queues(QUEUES, now=stream.now)
    for step in range(STEPS):
        await stream.look()
        if step % 2:
            what, act = stream.call()
        else:
            units, now = stream.batch(), stream.now
            what, act = "commit", lambda s, units=units, now=now: s.commit(units, now=now)
        said, told = plain(await act(sqlite)), plain(await act(postgres))
        assert said == told, f"PERDURE_SEED={seed} step {step}: {what}: {differences(said, told)}"
        if step % 5 == 4 or step == STEPS - 1:
            here, there = comparable(await dump(sqlite)), comparable(await dump(postgres))
            assert here == there, f"PERDURE_SEED={seed} step {step}: after {what}: {differences(here, there)}"
        let += len(said["claimed"]) if what == "claim_line" else 0
    assert let > 0, f"PERDURE_SEED={seed}: a stream that lets nobody through shows little"
    assert {row["queue"] for row in (await dump(sqlite))["workflow"]} & set(QUEUES)
