"""Asking recovery policies what to do about one interrupted workflow.

Promises: each is given ``LIMIT_SECONDS`` and left alone after that; one that raises, takes longer or answers what
cannot be followed gives the default, with the reason in ``Answer.because``; nothing that it does ends the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure.client.line import Line
from perdure.model.states import Cause
from perdure.policy.decisions import Decision, Default
from perdure.policy.incident import Incident
from perdure.policy.rules import Policy, passes, why_not
from perdure.runtime.pool import ThreadPool

log = logging.getLogger("perdure")

LIMIT_SECONDS = 5.0


class Host(Protocol):
    """What asking needs of an executor."""

    line: Line
    context: Any
    step_pool: ThreadPool
    policy_limit: float  # seconds


class Answer(NamedTuple):
    """What is to be done, by whose answer, and why."""

    decision: Decision  # never a Default
    policy: str  # "" if none answered
    because: str
    by_default: bool = False

    @property
    def spoken(self) -> bool:
        """Whether a policy answered, be it in a way that could not be followed."""
        return bool(self.policy)


class _Broken(NamedTuple):
    why: str


async def ask(host: Host, policies: Sequence[Policy], incident: Incident, cause: Cause) -> Answer:
    """Ask each in turn until one answers (``policy/rules.py`` says what counts as an answer)."""
    for policy in policies:
        if policy.needs is not None:
            needed = await _call(host, policy.needs, False, incident.name, incident.status)
            if isinstance(needed, _Broken):
                return broken(incident, policy, f"its needs() {needed.why}")
            if not needed:
                continue
        answer = await _call(host, policy.decide, policy.is_async, incident)
        if isinstance(answer, _Broken):
            return broken(incident, policy, answer.why)
        if policy.needs is None and passes(answer):
            continue
        if refused := why_not(answer, cause, process=incident.kind == "process"):
            return broken(incident, policy, refused)
        return _settled(incident, policy, answer)
    return Answer(incident.default, "", incident.default.because, by_default=True)


def _settled(incident: Incident, policy: Policy, answer: Decision) -> Answer:
    if isinstance(answer, Default):
        decision = with_data(incident.default, answer)
        return Answer(decision, policy.name, decision.because, by_default=True)
    return Answer(answer, policy.name, answer.because)


def with_data(decision: Decision, of: Decision) -> Decision:
    """The same decision with another's data."""
    return msgspec.structs.replace(decision, set=of.set, because=of.because or decision.because)


def broken(incident: Incident, policy: Policy, why: str) -> Answer:
    """The default, since this policy's answer cannot be followed; said in the log, and kept with the decision."""
    because = f"policy {policy.name} {why}; the default was applied"
    log.warning("workflow %s: %s (%s)", incident.id, because, policy.place)
    return Answer(incident.default, policy.name, because, by_default=True)


async def _call(host: Host, fn: Callable[..., Any], is_async: bool, *args: Any) -> Any:
    """The function's answer, or how it broke."""
    loop = host.line.loop
    began: asyncio.Future[None] = loop.create_future()
    if is_async:
        call: asyncio.Future[Any] = asyncio.Task(_guarded(fn, *args), loop=loop, context=host.context.copy())
        began.set_result(None)
    else:

        def in_thread() -> Any:
            host.step_pool.call(_begun, began)
            return fn(*args)

        call = host.step_pool.run(host.context.copy(), in_thread, (), {})
        await began  # steps may have all threads: what it waits for one does not count
    try:
        await asyncio.wait([call], timeout=host.policy_limit)
    finally:
        if not call.done():
            call.cancel()  # whatever it makes of that: nobody waits
    if not call.done() or call.cancelled():
        return _Broken(f"did not answer within {host.policy_limit:g} s")
    error = call.exception()
    if error is None:
        answer = call.result()
        return _Broken(f"raised {_said(answer.error)}") if isinstance(answer, _Raised) else answer
    return _Broken(f"raised {_said(error)}")


def _begun(began: asyncio.Future[None]) -> None:
    if not began.done():
        began.set_result(None)


class _Raised(NamedTuple):
    error: BaseException


async def _guarded(fn: Callable[..., Any], *args: Any) -> Any:
    """What asyncio would let end the loop is an answer like another."""
    try:
        return await fn(*args)
    except (KeyboardInterrupt, SystemExit) as error:
        return _Raised(error)


def _said(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
