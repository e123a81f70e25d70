"""A scheme with what its names do: the class whose instance an action gets as ``self``, and the functions.

The scheme says what may happen; this says what then runs. Values go in and out of instances here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from perdure.schemes import calling
from perdure.schemes.form import OnCrash, Scheme


class Declaration(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What ``@app.process`` takes, and what a burst runs."""

    scheme: Scheme
    cls: type[Any]
    functions: Mapping[str, Callable[..., Any]]  # as the class has them: not bound
    place: str

    def named(self, *, name: str | None = None, on_crash: OnCrash | None = None) -> Declaration:
        """The same under another name, or with another answer to a crash."""
        scheme = msgspec.structs.replace(
            self.scheme, name=name or self.scheme.name, on_crash=on_crash or self.scheme.on_crash
        )
        return msgspec.structs.replace(self, scheme=scheme)

    def make(self, values: Mapping[str, Any]) -> Any:
        """An instance with its parameters set, those not given to their defaults.

        Raises ``TypeError`` naming one that is required and not given, or given and not declared.
        """
        instance: Any = object.__new__(self.cls)
        if refusal := self.scheme.refusal(values):
            raise TypeError(refusal)
        for parameter in self.scheme.parameters:
            given = parameter.name in values
            setattr(instance, parameter.name, values[parameter.name] if given else parameter.value())
        return instance

    def values(self, instance: Any) -> dict[str, Any]:
        """The persistent parameters of an instance; what it has beside them is gone after the burst."""
        return {p.name: getattr(instance, p.name) for p in self.scheme.parameters if not p.temporary}

    def call(self, instance: Any, function: str, offered: Mapping[str, Any]) -> Any:
        """Call a function of an instance with what it asks for; its answer may have to be awaited."""
        found: Any = getattr(instance, function)
        if isinstance(inspect.getattr_static(self.cls, function, None), property):
            return found
        return found(**self.arguments(function, offered))

    def arguments(self, function: str, offered: Mapping[str, Any]) -> dict[str, Any]:
        """What a function is called with, out of what is offered (``calling.OFFERED``, parameters of the command)."""
        return calling.arguments(self.functions[function], offered)

    def is_async(self, function: str) -> bool:
        """Whether a function's answer must be awaited."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.functions[function]))
