"""Questions to executors that have the code, and their answers."""

from __future__ import annotations

from perdure.model.records import Request
from perdure.store.sql import queries
from perdure.store.sqlite.driver import Connection

Q = queries("perdure.store.sqlite")
OPEN_MAX = 100


def ask(conn: Connection, app: str, version: str, request: Request, patience: int, now: int) -> None:
    conn.execute(Q["request_expire"], (app, version, now))
    conn.execute(Q["request_put"], (app, request.nonce, version, request.kind, request.body, now, now + patience))


def asked(conn: Connection, app: str, version: str, now: int) -> list[Request]:
    return [Request(*row) for row in conn.execute(Q["request_open"], (app, version, now, OPEN_MAX))]


def answer(conn: Connection, app: str, nonce: bytes, owner: bytes, text: bytes) -> None:
    conn.execute(Q["request_answer"], (app, nonce, owner, text))


def answered(conn: Connection, app: str, nonce: bytes) -> bytes | None:
    found: bytes | None = conn.execute(Q["request_answer_of"], (app, nonce)).get
    if found is not None:
        conn.execute(Q["request_forget"], (app, nonce))
    return found
