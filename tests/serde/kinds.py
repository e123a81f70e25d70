"""Classes of every kind that values may have, at module level so that they can be found by name."""

from __future__ import annotations

import collections
import enum
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic

from perdure.serde import Secret

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"
    CASH = "$cash"


class Perm(enum.Flag):
    READ = 1
    WRITE = 2


class Shape2(enum.Enum):
    """Values that are no JSON: stored by name."""

    POINT = (0, 0)
    LINE = (1, 2)


@dataclass
class Line:
    sku: str
    qty: int = 1


@dataclass
class Order:
    id: str
    lines: list[Line]
    at: datetime | None = None
    total: Decimal = Decimal(0)
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: tuple[int, str]


@dataclass
class Express(Line):
    courier: str = "bike"


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class Doubled:
    """Its construction is not idempotent, so it does not survive."""

    cents: int

    def __post_init__(self) -> None:
        self.cents *= 2


@dataclass
class Indexed:
    """Its construction makes what is no field, and a field of its own."""

    names: list[str]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        self.count = len(self.names)
        self.index = {name: i for i, name in enumerate(self.names)}


@dataclass
class NeedsMore:
    a: int
    extra: InitVar[int]


@dataclass
class Login:
    user: str
    password: Annotated[str, Secret]
    token: Secret[str]


@dataclass
class Custom:
    number: str

    def __repr__(self) -> str:
        return "Custom(****)"


class Point(NamedTuple):
    x: int
    y: float = 0.5


Loose = collections.namedtuple("Loose", "a b")  # noqa: PYI024


class Movie(TypedDict):
    name: str
    year: NotRequired[int]


Dollar = TypedDict("Dollar", {"$type": str, "$x": int})


class Plain(msgspec.Struct):
    a: int
    b: list[UUID] = []


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
    order_id: str
    is_paid: bool = False


class Arrayed(msgspec.Struct, array_like=True):
    a: int
    b: str = "x"


class Card(msgspec.Struct, tag=True):
    number: str


class Cash(msgspec.Struct, tag=True):
    cents: int


class Sometimes(msgspec.Struct):
    a: int | msgspec.UnsetType = msgspec.UNSET


@attrs.define
class Part:
    name: str
    _hidden: int = 3
    sizes: list[float] = attrs.Factory(list)


@attrs.define
class Converted:
    a: int = attrs.field(converter=lambda value: value + 1)


class Model(pydantic.BaseModel):
    id: UUID
    at: datetime
    kind: Color = Color.RED
    price: Decimal | None = None
    ref: str = pydantic.Field(default="", alias="$ref")


class Team(pydantic.BaseModel):
    name: str
    members: dict[str, list[int]] = {}


class Guarded(pydantic.BaseModel):
    key: pydantic.SecretStr


class Raw(pydantic.BaseModel):
    data: Any = None


class Foreign:
    """A plain class: no data."""


class Text(str):
    __slots__ = ()
