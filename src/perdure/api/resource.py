"""Resources: what steps need open (an HTTP client, a pool), one for the app's whole working life."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

from perdure.definitions import ResourceDef
from perdure.errors import NotOpen

T = TypeVar("T")


class Resource(Generic[T]):
    """Made by ``@app.resource`` over a generator function that yields one value; ``http()`` in a step returns it."""

    def __init__(self, definition: ResourceDef) -> None:
        self.definition = definition
        self.__name__ = definition.name

    def __call__(self) -> T:
        """The open value. Raises ``NotOpen`` outside the app's working life."""
        if not self.definition.value:
            raise NotOpen(
                f"resource {self.definition.name!r} ({self.definition.place}) is not open: it is opened when the app "
                "begins to work (async with app: …) and closed after it has drained; connect() alone opens no resources"
            )
        return cast("T", self.definition.value[-1])

    def replace(self, value: Any) -> None:
        """For tests: what ``()`` returns from now on."""
        self.definition.value.append(value)

    def __repr__(self) -> str:
        return f"<resource {self.definition.name}>"
