"""Requests: what others ask of executors of this version, since it takes the code. Nothing of a workflow is written."""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from perdure.errors import DatabaseTrouble
from perdure.model.records import Request
from perdure.model.resets import read_point
from perdure.operations.ask import JUDGE, JUDGE_RESET, REPLAY, RESTARTABLE
from perdure.runtime import plan
from perdure.runtime.adoption import Adopter
from perdure.runtime.judging import judge

log = logging.getLogger("perdure")


class Host(plan.Host, Protocol):
    """What answering needs of an executor."""

    adopter: Adopter
    answering: bool


async def serve_requests(host: Host) -> None:
    """Answer what is asked of executors of this version. Trouble leaves it for the next round.

    Nothing if answers are under way: a policy may take its time.
    """
    if host.answering:
        return
    store = host.line.store
    host.answering = True
    try:
        for request in await store.asked(host.version, now=host.line.clock.stamp()):
            answer = await _answer(host, request)
            if answer is not None:
                await store.answer(request.nonce, host.me.id, answer)
    except DatabaseTrouble as trouble:
        log.info("the database is in trouble, who asks waits: %s", trouble)
    finally:
        host.answering = False


async def _answer(host: Host, request: Request) -> bytes | None:
    """None: a kind that only a later Perdure knows."""
    if request.kind == plan.KIND:
        return msgspec.json.encode(await plan.plan(host, msgspec.json.decode(request.body, type=dict[str, str])))
    if request.kind == REPLAY:
        id = msgspec.json.decode(request.body, type=str)
        row = (await host.line.store.rows([id])).get(id)
        return msgspec.json.encode("it is gone" if row is None else await host.adopter.check(row, host.version) or "")
    if request.kind == RESTARTABLE:
        return msgspec.json.encode({name: of.restartable for name, of in host.registry.workflows.items()})
    if request.kind in (JUDGE, JUDGE_RESET):
        asked = msgspec.json.decode(request.body)
        ids, point = (asked, None) if request.kind == JUDGE else (asked["ids"], read_point(asked["point"]))
        found = await judge(
            host.line.store, host.registry, ids, version=host.version, executor_id=host.executor_id, point=point
        )  # fmt: skip
        return msgspec.json.encode(found)
    return None
