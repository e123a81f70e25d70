"""Recovery policies as they are declared on an app or a router."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Container
from typing import Any, TypeVar

from perdure.definitions import place_of
from perdure.errors import DefinitionError, did_you_mean
from perdure.model.states import Cause
from perdure.policy.decisions import Decision
from perdure.policy.incident import Incident
from perdure.policy.rules import Policy, Restorer

Asked = TypeVar("Asked", bound=Callable[[Incident], Decision | Awaitable[Decision]] | type[Restorer])  # as-is
CAUSES = {cause.value: cause for cause in Cause if cause is not Cause.NONE}


def declare(fn: Any, target: object, on: Collection[str], order: int, scope: Container[str], face: str) -> Policy:
    """A policy from what its decorator was given. Raises ``DefinitionError`` for what can never be asked."""
    name = getattr(fn, "__qualname__", type(fn).__qualname__).replace("<locals>.", "")
    place = place_of(fn.decide) if hasattr(fn, "decide") else place_of(fn)
    needs, decide = None, fn
    if inspect.isclass(fn):
        if not (callable(getattr(fn, "needs", None)) and callable(getattr(fn, "decide", None))):
            raise DefinitionError(
                f"policy {name} ({place}) is a class; it needs needs(name, status) and decide(incident)"
            )
        made: Any = fn()
        needs, decide = made.needs, made.decide
        if inspect.iscoroutinefunction(needs):
            raise DefinitionError(f"needs() of policy {name} ({place}) must be a plain 'def'; decide() may be async")
    elif not callable(fn):
        raise DefinitionError(f"a recovery policy is a function or a class, not {fn!r}")
    is_async = inspect.iscoroutinefunction(decide)
    if is_async and face != "perdure":
        raise DefinitionError(f"policy {name} ({place}) must be 'def' in {face}, as all code of that face is")
    return Policy(
        name=name, decide=decide, needs=needs, is_async=is_async, target=_target(target), scope=scope,
        causes=_causes(on), order=order, place=place,
    )  # fmt: skip


def _target(target: object) -> str | None:
    if target is None or isinstance(target, str):
        return target
    target = getattr(target, "__registered__", target)  # of a process
    name = getattr(target, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(f"recovery_policy({target!r}): give a workflow, its name, or nothing for all")
    return name


def _causes(on: Collection[str]) -> frozenset[Cause]:
    if isinstance(on, str):
        raise DefinitionError(f"on={on!r} is one text; give a set: on={{{on!r}}}")
    for cause in on:
        if cause not in CAUSES:
            hint = did_you_mean(cause, CAUSES)
            raise DefinitionError(f"on={{{cause!r}}}: a cause is one of {', '.join(CAUSES)}{hint}")
    if not on:
        raise DefinitionError(f"on={on!r}: a policy without a cause is never asked; give some of {', '.join(CAUSES)}")
    return frozenset(CAUSES[cause] for cause in on)
