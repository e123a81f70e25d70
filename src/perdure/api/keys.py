"""Typed names of what crosses a workflow's boundary: topics of messages, events, streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, get_args

from perdure.errors import DefinitionError, Unserializable
from perdure.model.text import KEY_BYTES_MAX, NAME_BYTES_MAX, NEEDED, is_kept
from perdure.serde.show import show
from perdure.serde.values import Shape

if TYPE_CHECKING:  # type parameters have defaults only since Python 3.13; checkers know them from here
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class Key(Generic[T]):
    """A name with a type: ``Topic[Payment]("paid")``. Without a type any value goes.

    >>> Topic[int]("count").check(3)
    3
    """

    _hint: Any = Any

    def __init__(self, name: str) -> None:
        self.name = check_name(name, type(self).__name__.lower())

    @property
    def shape(self) -> Shape:
        """How values under this key are stored."""
        alias = getattr(self, "__orig_class__", None)
        args = get_args(alias) if alias is not None else ()
        return Shape.of(args[0] if args else Any)

    def check(self, value: T, /) -> T:
        """The value if it is of the key's type; raises ``Unserializable`` naming the path otherwise."""
        self.shape.encode(value, repr(self.name))
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Topic(Key[T]):
    """What messages are about: ``send(value, topic)`` and ``recv(topic)``."""


class Event(Key[T]):
    """What a workflow publishes about itself: ``set_event(event, value)`` and ``handle.get_event(event)``."""


class Stream(Key[T]):
    """What a workflow says bit by bit: ``write_stream(stream, value)`` and ``handle.read_stream(stream)``."""


def check_name(name: Any, what: str) -> str:
    """A name that can be stored. Raises ``DefinitionError`` showing it."""
    if not is_kept(name, NAME_BYTES_MAX):
        raise DefinitionError(
            f"{show(name, 100)} cannot name a {what}: a string of at most {NAME_BYTES_MAX} bytes, {NEEDED}, is needed"
        )
    return name


def check_message_key(key: Any) -> str | None:
    """A message's key, or None for none. Raises ``DefinitionError`` showing it."""
    if key is not None and not is_kept(key, KEY_BYTES_MAX):
        raise DefinitionError(
            f"key={show(key, 100)} cannot be a message's key: a string of at most {KEY_BYTES_MAX} bytes, {NEEDED}, is "
            "needed; give the text of an id, or a hash of what is longer"
        )
    return key


def name_and_shape(key: Key[Any] | str, what: str) -> tuple[str, Shape]:
    """A key or a plain string: its name, and how its values are stored."""
    if isinstance(key, Key):
        return key.name, key.shape
    return check_name(key, what), Shape.of(Any)


def encode_message(value: Any, shape: Shape, name: str) -> bytes:
    """A message's value. None cannot be sent: it is what ``recv`` answers when the time is up."""
    if value is None:
        raise Unserializable(
            f"None was sent on topic {name!r}, but recv answers None when its time is up; send a value, e.g. True",
            "value",
        )
    return shape.encode(value, "value")
