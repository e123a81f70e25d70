"""Open a session of the user's, carry out a flow in it, leave it: in this thread, or on this loop.

Promise: what the flow came to counts, whatever leaving the session raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

from perdure.definitions import StepDef
from perdure.runtime.attempts import Do, aperform, perform
from perdure.sessions import find
from perdure.sessions.find import aopened, opened

log = logging.getLogger("perdure")

Flow = Callable[[Any], Generator[Do, Any, Any]]  # given the session


def in_blocking_session(
    definition: StepDef,
    flow: Flow,
    body: Callable[[Any], Any],
    on_loop: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any],
) -> Any:
    """Open a session, carry out a flow in it, leave it. What it came to counts, whatever leaving raises."""
    ending: Any = None
    ended = False
    try:
        assert definition.source is not None, "declared with a source"
        with opened(definition.source) as session:
            try:
                ending, ended = perform(flow(session), session, body, on_loop), True
            except BaseException:
                with suppress(Exception):
                    session.rollback()
                raise
    except Exception as error:
        if not ended:
            raise
        log.debug("leaving the session of transaction %s raised %r", definition.name, error)
    return ending


async def in_awaited_session(definition: StepDef, flow: Flow, body: Callable[[Any], Any]) -> Any:
    """The same, awaited."""
    ending: Any = None
    ended = False
    try:
        assert definition.source is not None, "declared with a source"
        async with aopened(definition.source) as session:
            try:
                ending, ended = await aperform(flow(session), session, body), True
            except BaseException:
                with suppress(Exception):
                    async with asyncio.timeout(find.LEAVE_SECONDS):
                        await session.rollback()
                raise
    except Exception as error:
        if not ended:
            raise
        log.debug("leaving the session of transaction %s raised %r", definition.name, error)
    return ending
