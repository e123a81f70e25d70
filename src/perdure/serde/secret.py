"""Secret: a value that is stored but never shown.

Promises: ``repr``, ``str`` and formatting of a ``Secret`` are always eight stars; only ``reveal()`` gives the value.
In stored JSON it stands as ``{"$secret": …}``, so that screens can hide it without knowing its type; encrypt what is
stored with a codec.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")

STARS = "********"


class Secret(Generic[T]):
    """A value that never reaches logs or screens.

    As a type hint ``Secret[str]`` the value arrives wrapped; as ``Annotated[str, Secret]`` it arrives plain and is
    still hidden wherever Perdure shows arguments::

        @app.workflow
        async def connect(user: str, password: Secret[str]) -> None:
            login(user, password.reveal())

        await connect("ada", Secret("pw"))
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Give the value itself: ``Secret("pw").reveal()`` is ``"pw"``."""
        return self._value

    def __eq__(self, other: object) -> bool:
        theirs: Any = other
        return bool(self._value == theirs.reveal()) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return STARS

    def __str__(self) -> str:
        return STARS

    def __format__(self, spec: str) -> str:
        return STARS

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled or copied; reveal() it where it is needed.")

    def __copy__(self) -> Secret[T]:
        return self

    def __deepcopy__(self, memo: object) -> Secret[T]:
        return self


def is_secret(metadata: tuple[Any, ...]) -> bool:
    """Say whether the extras of an ``Annotated`` hint mark a secret: ``Annotated[str, Secret]``."""
    return any(extra is Secret or isinstance(extra, Secret) for extra in metadata)
