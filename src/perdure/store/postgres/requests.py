"""Questions to executors that have the code, and their answers."""

from __future__ import annotations

from perdure.model.records import Request
from perdure.store.postgres.commit import Place
from perdure.store.postgres.connection import Link

OPEN_MAX = 100


async def ask(link: Link, place: Place, version: str, request: Request, patience: int, now: int | None) -> None:
    await link.fetch(
        place.sql["request_put"], place.app, request.nonce, version, request.kind, request.body.decode(), patience, now,
        writing=True,
    )  # fmt: skip


async def asked(link: Link, place: Place, version: str, now: int | None) -> list[Request]:
    found = await link.fetch(place.sql["request_open"], place.app, version, now, OPEN_MAX)
    return [Request(row[0], row[1], row[2].encode()) for row in found]


async def answer(link: Link, place: Place, nonce: bytes, owner: bytes, text: bytes) -> None:
    await link.fetch(place.sql["request_answer"], place.app, nonce, owner, text.decode(), writing=True)


async def answered(link: Link, place: Place, nonce: bytes) -> bytes | None:
    row = await link.fetchrow(place.sql["request_answer_of"], place.app, nonce, writing=True)
    return None if row is None else row[0].encode()
