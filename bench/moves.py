"""How many workflows a second an operator moves and resets: ``python -m bench.moves --n 5000 --db URL``, on an empty
database.

Half of them wait with five records and an untaken message, half have failed. All are moved (the open ones go), then
reset to before their third record with a move, then both are ordered again, which writes nothing. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Sequence

from bench.meter import emit
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.orders import Answer, Answered, Goal
from perdure.model.records import Kind, Outcome, Record
from perdure.model.resets import read_point
from perdure.model.states import Status, Versioning
from perdure.model.writes import Close, Park, Send, Start, Unit
from perdure.operations.look import Order
from perdure.operations.move import move
from perdure.operations.reset import Options, reset
from perdure.store.base import Store
from perdure.store.open import open_store

RECORDS = 5
AT_ONCE = 200


async def fill(store: Store, ids: Sequence[str]) -> None:
    """The workflows as an executor of v1 has left them."""
    token = TokenMaker()
    for first in range(0, len(ids), AT_ONCE):
        units: list[Unit] = []
        for n, id in enumerate(ids[first : first + AT_ONCE]):
            claim = token()
            start = Start(
                id=id, lineage=token(), name="order", version="v1", input=b"[42]", fingerprint=b"f", nonce=token(),
                claim=claim, owner=b"owner".ljust(16), status=Status.RUNNING,
            )  # fmt: skip
            records = [
                Record(seq, str(seq), Kind.STEP, "act", seq, b"fp", Outcome.VALUE, b'"a result of some length"')
                for seq in range(1, RECORDS + 1)
            ]
            change = Close(Status.FAILED, Outcome.NONE, None, token()) if n % 2 else Park(None, "waits")
            units.append(
                Unit(
                    key=RunKey(id, 1), claim=claim, nonce=token(), version="v1", start=start, records=records,
                    change=change,
                )
            )  # fmt: skip
        await store.commit(units)
        mail = [Send(unit.key.id, token(), "", b'"hello"', token()) for unit in units]
        await store.commit([Unit(key=RunKey("", 0), nonce=token(), sends=mail)])


async def timed(work: Awaitable[list[Answered]]) -> tuple[float, int]:
    """Workflows a second, and how many were done."""
    began = time.perf_counter()
    answers = await work
    return len(answers) / (time.perf_counter() - began), sum(one.answer is Answer.DONE for one in answers)


async def main(a: argparse.Namespace) -> None:
    store = open_store(a.db, "bench")
    await store.open()
    await store.migrate()
    ids = [f"w{n:07d}" for n in range(a.n)]
    await fill(store, ids)
    token, order = TokenMaker(), Order(by="bench", reason="measured")
    goal = Goal(Versioning.PINNED, "v2")
    options = Options(goal=Goal(Versioning.PINNED, "v3"), force=True)
    figures: dict[str, float | int] = {"n": a.n}
    for name in ("move", "move_again"):
        rate, done = await timed(move(store, ids, goal, order, token, force=True))
        figures |= {f"{name}_per_s": round(rate), f"{name}_done": done}
    for name in ("reset", "reset_again"):
        rate, done = await timed(reset(store, ids, read_point("#3"), order, token, options))
        figures |= {f"{name}_per_s": round(rate), f"{name}_done": done}
    await store.close()
    emit(dict(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--db", required=True)
    asyncio.run(main(parser.parse_args()))
