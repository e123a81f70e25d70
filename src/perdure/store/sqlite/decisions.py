"""What was decided about interrupted runs: written with its effect, read for whoever looks later."""

from __future__ import annotations

from collections.abc import Collection

from perdure.model.ids import RunKey
from perdure.model.records import DecisionRow
from perdure.model.states import CAUSE, CAUSES
from perdure.model.writes import Decided
from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.owned import forget_workflow

Q = queries("perdure.store.sqlite")


def put(conn: Connection, app: str, key: RunKey, claim: bytes | None, decided: Decided, now: int) -> None:
    conn.execute(
        Q["decision_put"],
        (
            app, key.id, key.run, claim, now, CAUSE[decided.cause], decided.decision, decided.policy, decided.because,
            decided.parameters, decided.evidence, decided.executor,
        ),
    )  # fmt: skip


def deleted(conn: Connection, app: str, key: RunKey, claim: bytes | None) -> bool:
    """Whether a first try has deleted the workflow."""
    return conn.execute(Q["decision_deleted"], (app, *key, claim)).get is not None


def forget(conn: Connection, app: str, id: str, nonce: bytes) -> None:
    """Every run of the id goes; open children are cancelled, who waits is woken to see that. The decision stays."""
    conn.execute(Q["wake_children"], (app, id, nonce))
    conn.execute(Q["wake_watchers"], (app, id, nonce))
    forget_workflow(conn, app, id, memory=False)


def decisions(conn: Connection, app: str, ids: Collection[str]) -> list[DecisionRow]:
    return [
        DecisionRow(
            id=r[0], run=r[1], claim=r[2], at=r[3], cause=CAUSES[int(r[4])], decision=r[5], policy=r[6], because=r[7],
            parameters=r[8], evidence=r[9], executor=r[10],
        )
        for r in conn.executemany(Q["decision_of"], [(app, id) for id in sorted(set(ids))])
    ]  # fmt: skip
