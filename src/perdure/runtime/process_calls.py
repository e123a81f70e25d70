"""One process in memory: an instance of its class, and calls of what its scheme names.

Functions of either colour: what they give is awaited where it must be. In a sync body nothing is, so that the
coroutines here run to their end at once (``plain.py``).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, cast

from perdure.model.processes import Order
from perdure.schemes import expressions, times
from perdure.schemes.declaration import Declaration
from perdure.schemes.expressions import Evaluation
from perdure.schemes.form import Command, Timer, Transition
from perdure.serde.values import Shape

Offered = Mapping[str, Any]


async def either(answer: Any) -> Any:
    """What a function of either colour gave."""
    return await answer if inspect.isawaitable(answer) else answer


class Instance:
    """See the head of this file. ``values``: its persistent parameters; temporary ones are as declared."""

    def __init__(self, declaration: Declaration, values: Mapping[str, Any]) -> None:
        self.declaration = declaration
        self.scheme = declaration.scheme
        self.fields = {parameter.name for parameter in self.scheme.parameters}
        self.object = declaration.make(values)

    @property
    def values(self) -> dict[str, Any]:
        """Its persistent parameters as they are now."""
        return self.declaration.values(self.object)

    def copy(self) -> dict[str, Any]:
        """All that it holds now, to be put back."""
        held = cast("dict[str, Any]", vars(self.object))
        try:
            return copy.deepcopy(held)
        except Exception:  # what cannot be copied is shared
            return dict(held)

    def put_back(self, held: Mapping[str, Any]) -> None:
        """Let it hold what it held."""
        holds = cast("dict[str, Any]", vars(self.object))
        holds.clear()
        holds.update(held)

    async def call(self, name: str, offered: Offered) -> Any:
        """Call one of its functions with what that asks for."""
        given = self.declaration.arguments(name, offered)
        return await either(getattr(self.object, name)(**given))

    async def holds(self, condition: str, offered: Offered) -> bool:
        """Whether a condition holds; one that is empty does."""
        return bool(await _answered(expressions.evaluate(condition), partial(self._value, offered=offered)))

    async def allows(self, by: str, actor: str | None, offered: Offered) -> bool:
        """Whether an actor is one of those in ``by``; anybody is where that is empty."""
        return bool(await _answered(expressions.evaluate(by), partial(self._is, actor=actor, offered=offered)))

    async def _is(self, name: str, actor: str | None, offered: Offered) -> bool:
        if name not in self.fields:
            return bool(await self.call(name, offered))
        value = getattr(self.object, name)
        if isinstance(value, str) or not isinstance(value, Collection):
            return actor is not None and value == actor
        return actor in value

    async def due(self, timer: Timer, now: int, offered: Offered) -> int | None:
        """When a timer that is armed ``now`` is due; None: never."""
        found: int | None = await _answered(times.due(timer, now), partial(self._value, offered=offered))
        return found

    async def _value(self, name: str, offered: Offered) -> Any:
        if name in offered:
            return offered[name]
        return getattr(self.object, name) if name in self.fields else await self.call(name, offered)

    # -- commands

    def offered(self, state: str, actor: str | None = None, edge: Transition | None = None, **more: Any) -> Offered:
        """What functions may ask for by name."""
        event, target = ("", state) if edge is None else (edge.name, edge.target)
        source = state if edge is None else edge.source
        return {**more, "actor": actor, "event": event, "source": source, "target": target, "state": state}

    async def available(self, state: str, actor: str | None, *, anybody: bool) -> dict[str, Transition]:
        """The commands that an actor can give, each with its first edge; ``anybody``: whoever it would be.

        A condition that asks for a parameter of the command cannot be judged before that is given: it counts as true.
        """
        found: dict[str, Transition] = {}
        for name, edges in self.scheme.offers(state).items():
            for edge in edges:
                offered = self.offered(state, actor, edge)
                if not anybody and not await self.allows(edge.by, actor, offered):
                    continue
                if self._asks_for_more(edge) or await self.holds(edge.cond, offered):
                    found[name] = edge
                    break
        return found

    def _asks_for_more(self, edge: Transition) -> bool:
        command = self.scheme.command(edge.name)
        named = {parameter.name for parameter in command.parameters} if command is not None else set[str]()
        return bool(named & set(expressions.names(edge.cond)))

    def given(self, command: Command, order: Order) -> dict[str, Any]:
        """The parameters of a command as its functions get them. Raises ``TypeError``, ``Unserializable``."""
        known = {parameter.name: parameter for parameter in command.parameters}
        for name in order.parameters:
            if name not in known:
                has = ", ".join(known) or "none"
                raise TypeError(f"the command {command.name!r} has no parameter {name!r}; it has: {has}")
        found: dict[str, Any] = {}
        for name, parameter in known.items():
            if name in order.parameters:
                found[name] = Shape.of(parameter.hint).decode(bytes(order.parameters[name]), name)
            elif parameter.required:
                raise TypeError(f"the command {command.name!r} needs the parameter {name!r}; give {name}=…")
            else:
                found[name] = parameter.value()
        return found


async def _answered(asked: Evaluation, value: Callable[[str], Awaitable[Any]]) -> Any:
    """The answer of an evaluation, each of whose names may have to be awaited."""
    try:
        name = next(asked)
        while True:
            name = asked.send(await value(name))
    except StopIteration as end:
        return end.value
