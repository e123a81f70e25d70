"""The lone checkpoint: one record of one running workflow, which is the commit that a sequence of steps waits for.

One statement fences, sees that the record comes next, and writes it. Where it writes nothing, the longer way tells why:
a stale claim, a second try, a gap.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.model.writes import Receipt, Unit, Verdict
from perdure.store.sql import queries
from perdure.store.sqlite import commit, rows
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")


def write(conn: Connection, app: str, units: Sequence[Unit], now: int) -> Receipt:
    """Write a batch; to be called within a write transaction."""
    if len(units) == 1 and units[0].is_checkpoint and _checkpoint(conn, app, units[0]):
        return Receipt(now, [Verdict(applied=True)])
    return commit.commit(conn, app, units, now)


def _checkpoint(conn: Connection, app: str, unit: Unit) -> bool:
    (r,) = unit.records
    id, run = unit.key
    written = conn.execute(
        Q["history_checkpoint"],
        (
            app, id, run, r.seq, r.path, r.kind.value, r.name, r.at, r.fingerprint, r.outcome.value, r.data, r.attempt,
            r.shown, rows.pack_intents(r.intents), unit.version, unit.nonce, unit.claim,
        ),
    )  # fmt: skip
    return written.get is not None
