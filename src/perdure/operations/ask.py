"""Asking an executor: what takes the code is a request row, and a live executor of that version answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from perdure.model.ids import TokenMaker
from perdure.model.records import Request, WorkflowRow
from perdure.model.resets import Point
from perdure.model.trials import Judged
from perdure.store.base import Store

REPLAY = "replay"  # the kind of a request: would this run replay on the code of that version?
JUDGE = "judge"  # the same of many, with the place where it would not
RESTARTABLE = "restartable"  # which workflows the code of that version declares so
JUDGE_RESET = "judge_reset"  # the same of what a reset would keep of them
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 15.0  # an executor looks for requests in the rounds of its reaper, every 5 s at most


async def ask_executor(store: Store, version: str, request: Request, *, patience: float | None = None) -> bytes | None:
    """The answer, JSON; None if no executor of ``version`` gave one within ``patience`` seconds (15)."""
    patience = PATIENCE_SECONDS if patience is None else patience
    await store.ask(version, request, int(patience * 1e6))
    store.hint()
    end = asyncio.get_running_loop().time() + patience
    while (answer := await store.answered(request.nonce)) is None:
        if asyncio.get_running_loop().time() >= end:
            return None
        await asyncio.sleep(LOOK_SECONDS)
    return answer


async def ask_replay(store: Store, new_token: TokenMaker, row: WorkflowRow, version: str) -> str | None:
    """Why a run would not replay on the code of ``version``; None if it would."""
    answer = await ask_executor(store, version, Request(new_token(), REPLAY, msgspec.json.encode(row.id)))
    if answer is None:
        return f"no live executor of version {version!r} answered whether its history replays there"
    return msgspec.json.decode(answer, type=str) or None


async def ask_restartable(
    store: Store, new_token: TokenMaker, version: str, *, patience: float | None = None
) -> dict[str, bool]:
    """By name: whether the code of ``version`` declares a workflow restartable; empty if nobody says so in time."""
    request = Request(new_token(), RESTARTABLE, b"null")
    answer = await ask_executor(store, version, request, patience=patience)
    return {} if answer is None else msgspec.json.decode(answer, type=dict[str, bool])


async def ask_verdicts(
    store: Store, new_token: TokenMaker, ids: Sequence[str], version: str, *, patience: float | None = None,
    point: Point | None = None,
) -> dict[str, Judged]:  # fmt: skip
    """What replays of these workflows on the code of ``version`` come to, as far as somebody says so in time.

    ``point``: of the records that a reset to it would keep; else of all.
    """
    if point is None:
        request = Request(new_token(), JUDGE, msgspec.json.encode(list(ids)))
    else:
        request = Request(new_token(), JUDGE_RESET, msgspec.json.encode({"ids": list(ids), "point": str(point)}))
    answer = await ask_executor(store, version, request, patience=patience)
    found = [] if answer is None else msgspec.json.decode(answer, type=list[Judged])
    return {one.id: one for one in found}
