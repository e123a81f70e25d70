"""The lone checkpoint: one record of one running workflow, which is the commit that a sequence of steps waits for.

It has a statement of its own, with plain parameters: for one row the JSON arrays of a batch cost more, here and in the
server, than the write. It locks, fences and recognises a second try as the batch's statement does.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.model.writes import Receipt, Unit, Verdict
from perdure.store.postgres.commit import Place, Ways
from perdure.store.postgres.rows import pack_intents


def is_checkpoint(batch: Sequence[Unit]) -> bool:
    """Whether a batch is one unit that holds one record and nothing else."""
    if len(batch) != 1:
        return False
    u = batch[0]
    if len(u.records) != 1 or u.claim is None or u.start is not None or u.change is not None or u.decision:
        return False
    return not (u.sends or u.events or u.children or u.taken or u.woken)


async def checkpoint(ways: Ways, place: Place, unit: Unit, now: int | None) -> Receipt:
    """Write the record if the unit holds the run. One that another unit put there first is the server's error."""
    (r,) = unit.records
    row = await ways.fetchrow(
        place.sql["checkpoint"], place.app, unit.key.id, unit.claim, unit.key.run, r.seq, r.path, r.kind, r.name, r.at,
        r.fingerprint, r.outcome, None if r.data is None else r.data.decode(), r.attempt, r.shown,
        pack_intents(r.intents), unit.version, unit.nonce, now,
    )  # fmt: skip
    return Receipt(row[0], [Verdict(applied=row[1])])
