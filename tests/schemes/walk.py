"""A burst over a scheme without a database: what the form says, done at once. For tests of the form alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from perdure.schemes import expressions
from perdure.schemes.declaration import Declaration
from perdure.schemes.form import Transition


class Walk:
    """One instance: where it stands, and what ran."""

    def __init__(self, declaration: Declaration, **values: Any) -> None:
        self.declaration = declaration
        self.instance = declaration.make(values)
        self.at = declaration.scheme.initial
        self.path: list[tuple[str, str, str, str]] = []

    async def start(self) -> None:
        await self._run(self.declaration.scheme.entering(self.at), {})
        await self._settle({})

    async def order(self, name: str, actor: str | None = None, **parameters: Any) -> bool:
        offered = {"actor": actor, "event": name, **parameters}
        for edge in self.declaration.scheme.offers(self.at).get(name, ()):
            if await self._is(edge.by, actor=actor, offered=offered) and await self._holds(edge.cond, offered):
                await self._take(edge, offered)
                return True
        return False

    async def fire(self, timer: str) -> bool:
        for edge in self.declaration.scheme.fired(self.at, timer):
            if await self._holds(edge.cond, {"event": timer}):
                await self._take(edge, {"event": timer})
                return True
        return False

    async def _settle(self, offered: Mapping[str, Any]) -> None:
        for edge in self.declaration.scheme.autos(self.at):
            if await self._holds(edge.cond, offered):
                return await self._take(edge, {**offered, "event": ""})
        return None

    async def _take(self, edge: Transition, offered: Mapping[str, Any]) -> None:
        await self._run(
            self.declaration.scheme.moves(edge).all, {**offered, "source": edge.source, "target": edge.target}
        )
        self.path.append((edge.source, edge.target, edge.trigger, edge.name))
        self.at = edge.target
        await self._settle(offered)

    async def _run(self, actions: tuple[str, ...], offered: Mapping[str, Any]) -> None:
        for action in actions:
            await self._call(action, offered)

    async def _call(self, function: str, offered: Mapping[str, Any]) -> Any:
        found = self.declaration.call(self.instance, function, {"state": self.at, **offered})
        return await found if inspect.isawaitable(found) else found

    async def _holds(self, text: str, offered: Mapping[str, Any]) -> bool:
        asked = expressions.evaluate(text)
        try:
            name = next(asked)
            while True:
                if name in offered:
                    name = asked.send(offered[name])
                elif name in self.declaration.functions:
                    name = asked.send(await self._call(name, offered))
                else:
                    name = asked.send(getattr(self.instance, name))
        except StopIteration as end:
            return bool(end.value)

    async def _is(self, text: str, *, actor: str | None, offered: Mapping[str, Any]) -> bool:
        asked = expressions.evaluate(text)
        try:
            name = next(asked)
            while True:
                if name in self.declaration.functions:
                    name = asked.send(await self._call(name, {**offered, "actor": actor}))
                else:
                    held = getattr(self.instance, name)
                    name = asked.send(actor == held if isinstance(held, str) else actor in held)
        except StopIteration as end:
            return bool(end.value)
