"""How many workflows a batch changes a second: ``python -m bench.batches --verb VERB [--n 20000]``.

Fills an empty database with so many workflows of one app (queued for ``cancel`` and ``restart``; held, with three
records, for ``resume`` and ``move``, which move each to another version, and ``reset``, which does so from its first
record), freezes them as one batch, and carries it out in this process. Prints one line of JSON: the seconds of ordering
and of carrying out, and workflows a second.

Without --db: a Postgres that is found and started; ``--db sqlite``: a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from bench.places import database
from perdure.model.batches import BatchState
from perdure.model.ids import TokenMaker
from perdure.model.states import Reason
from perdure.model.verbs import Cancel, Move, Reset, Restart, Resume, Verb
from perdure.model.writes import Hold
from perdure.operations.batches import BatchOrder, Work, create
from perdure.operations.look import Order
from perdure.store.base import Store
from perdure.store.open import open_store
from tests.store.build import outside, record, running, start, unit

CHUNK = 500
VERBS: dict[str, Verb] = {
    "cancel": Cancel(), "resume": Resume(version="v2", force=True), "restart": Restart(),
    "move": Move(to="v2", force=True), "reset": Reset(to="first", move_to="v2", force=True),
}  # fmt: skip


async def fill(store: Store, n: int, *, held: bool) -> None:
    """Workflows by the ordinary way in."""
    for first in range(0, n, CHUNK):
        ids = [f"w{number:07}" for number in range(first, min(first + CHUNK, n))]
        if not held:
            await store.commit([outside(children=[start(id) for id in ids])])
            continue
        claim = await running(store, *ids)
        hold = Hold(Reason.NONDETERMINISM, "history and code differ")
        await store.commit([unit(id, claim, records=[record(seq) for seq in (1, 2, 3)], change=hold) for id in ids])


async def measure(store: Store, verb: Verb, n: int, rate: float | None) -> dict[str, object]:
    """One batch over all of them."""
    token, owner = TokenMaker(), b"bench".ljust(16)
    order = BatchOrder(verb=verb, query="id IS NOT NULL", order=Order(by="bench", reason="bench"), rate=rate)
    began = time.perf_counter()
    row, _ = await create(store, order, token, owner)
    frozen = time.perf_counter()
    work = Work(store, row, owner, token)
    while not work.finished:
        await work.step()
    ended = time.perf_counter()
    assert work.row.state is BatchState.DONE
    assert work.row.done == n, work.row
    return {
        "verb": verb.name, "workflows": n, "order_seconds": round(frozen - began, 3),
        "apply_seconds": round(ended - frozen, 3), "per_second": round(n / (ended - began)),
    }  # fmt: skip


async def run(url: str, verb: Verb, n: int, rate: float | None) -> dict[str, object]:
    """Fill and measure."""
    store = open_store(url, "bench")
    await store.open()
    try:
        await store.migrate()
        await fill(store, n, held=isinstance(verb, Resume | Move | Reset))
        return {"database": url.partition(":")[0], **await measure(store, verb, n, rate)}
    finally:
        await store.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verb", choices=VERBS, default="cancel")
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=None)
    parser.add_argument("--db", default="postgres")
    given = parser.parse_args()
    with database(given.db) as url:
        print(json.dumps(asyncio.run(run(url, VERBS[given.verb], given.n, given.rate))))


if __name__ == "__main__":
    main()
