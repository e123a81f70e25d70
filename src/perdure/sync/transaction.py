# Produced from perdure/api/transaction.py by tools/async_to_sync.py; do not edit.
"""Transactions: steps whose own database writes commit together with their record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from perdure.definitions import StepDef, gives_coroutine, place_of, plain_args
from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us
from perdure.policy.retry import Retry
from perdure.runtime.transactions import TransactionCall
from perdure.serde.hints import call_hints
from perdure.serde.values import ArgsShape, Shape
from perdure.sync.step import check_retry, check_step


def check_source(source: Any) -> None:
    """Raises ``DefinitionError`` for what cannot open a session: anything but what is called without arguments."""
    opens = "what opens a session, such as sessionmaker(engine), engine.begin, pool.connection or pool.acquire"
    if not callable(source):
        raise DefinitionError(f"@app.transaction({source!r}): give {opens}; not the session")
    try:
        signature = inspect.signature(source)
    except (TypeError, ValueError):  # written in C: it does not say
        return
    try:
        signature.bind()
    except TypeError as error:
        name = getattr(source, "__qualname__", repr(source))
        raise DefinitionError(
            f"{name} ({place_of(source)}) was given to @app.transaction as its source, which is called without "
            f"arguments: {error}. If it is the body, the source is missing: write @app.transaction(source), with "
            f"{opens}"
        ) from None


def transaction_of(
    fn: Any, source: Callable[[], Any], name: Callable[[Any], str], retry: Retry | None, timeout: Duration | None
) -> StepDef:
    """What ``@app.transaction(source)`` declares. Raises ``DefinitionError`` for what cannot be one."""
    check_retry(retry)
    signature = check_step(fn)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise DefinitionError(
            f"transaction {fn.__qualname__} ({place_of(fn)}) takes no argument: its first is the session"
        )
    if parameters[0].name in ("self", "cls") and "." in fn.__qualname__:
        raise DefinitionError(
            f"transaction {fn.__qualname__} ({place_of(fn)}) is a method: its first argument is the session. "
            "Make it a function"
        )
    if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        signature = signature.replace(parameters=parameters[1:])  # the session is given, not called with
    hidden = frozenset(
        where - 1 if isinstance(where, int) else where for where in ArgsShape.of(fn).hidden if where != 0
    )
    return StepDef(
        name=name(fn),
        fn=fn,
        is_async=gives_coroutine(fn),
        result=Shape.of(call_hints(fn).get("return", Any)),
        place=place_of(fn),
        retry=retry,
        timeout=None if timeout is None else to_us(timeout, "timeout"),
        signature=signature,
        plain_args=plain_args(signature),
        hidden=hidden,
        source=source,
        calls=TransactionCall,
    )
