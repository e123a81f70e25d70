"""The base of classes that declare a scheme: reads parameters, states, transitions and functions of the class.

``Declared`` has no colour and starts nothing: the two faces' ``Process`` add how an instance is started and reached.
An instance is the ``self`` of actions during one burst, and nothing else.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import msgspec

from perdure.errors import SchemeError
from perdure.schemes.build import build
from perdure.schemes.declaration import Declaration
from perdure.schemes.draft import Draft
from perdure.schemes.form import Parameter, Scheme, identifier
from perdure.schemes.grammar import Command, Functions, State, Transition, draft_edges, draft_states

T = TypeVar("T")


class _Temporary:
    def __repr__(self) -> str:
        return "temporary"


TEMPORARY = _Temporary()

Temporary = Annotated[T, TEMPORARY]
"""A parameter that lives for one burst: ``note: Temporary[str] = ""``. It begins each burst with its default."""

_LIBRARIES = ("builtins", "perdure", "statemachine")  # what their classes have is neither parameter nor action

_NAMED = (State, Transition, Command)


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Declared:
    """Base of classes that declare a scheme.

    ``class X(Base, scheme=...)`` takes the states and transitions from elsewhere (a ``Draft`` that a reader made); the
    class adds parameters and functions.
    """

    __perdure__: ClassVar[Declaration]

    def __init_subclass__(cls, *, scheme: Draft | None = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        states = list(_states(cls))
        if scheme is None and not states:
            return  # a base with methods or parameters for others
        place = _place(cls)
        parameters = _parameters(cls, place)
        functions = Functions(dict(_functions(cls)))
        if scheme is None:
            top = draft_states(states, functions)
            edges = tuple(draft_edges(states, cls, functions))
            scheme = Draft(
                name=name or cls.__qualname__.rpartition(".<locals>.")[2], states=top, edges=edges, place=place
            )
        elif states:
            raise SchemeError(
                f"{place}: {cls.__name__} has states of its own ({states[0]!r}, …) and scheme=; leave one"
            )
        else:
            theirs = (*scheme.parameters, *(_parameters(scheme.fields_of, scheme.place) if scheme.fields_of else ()))
            names = {parameter.name for parameter in parameters}
            parameters = (*(parameter for parameter in theirs if parameter.name not in names), *parameters)
            functions.known = {**(scheme.functions or {}), **functions.known}
            functions.known |= {key: value.fget for key, value in _properties(scheme.attributes)}
        draft = msgspec.structs.replace(
            scheme, name=name or scheme.name or cls.__name__, parameters=parameters, functions=functions.known
        )
        fields = {parameter.name for parameter in parameters}
        for key, value in {**functions.known, **scheme.attributes}.items():
            if not hasattr(cls, key) and key not in fields:
                setattr(cls, key, value)
        built = build(draft)
        cls.__perdure__ = Declaration(scheme=built, cls=cls, functions=functions.known, place=place)
        if not states:
            _show(cls, built)

    def __init__(self, **values: Any) -> None:
        declaration: Declaration | None = getattr(type(self), "__perdure__", None)
        if declaration is None:
            raise TypeError(f"{type(self).__name__} has no states, so that nothing can be made of it")
        self.__dict__.update(declaration.make(values).__dict__)

    @property
    def model(self) -> Self:
        """The process itself, as actions written for ``python-statemachine`` call it."""
        return self

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({inside})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # its parameters change


def _show(cls: type, scheme: Scheme) -> None:
    """States and commands of a scheme from elsewhere, as a class that wrote them would have them."""
    for state in scheme.states:
        if identifier(state.name) not in vars(cls):
            shown = State(state.title, initial=state.initial, final=state.final, settable=state.settable)
            shown.name = state.name
            setattr(cls, identifier(state.name), shown)
    for command in scheme.commands:
        if identifier(command.name) not in vars(cls):
            setattr(cls, identifier(command.name), Command[...].of(command))


def declaration_of(cls: Any) -> Declaration:
    """What a class declares. Raises ``SchemeError`` for what is no process."""
    found: object = getattr(cls, "__perdure__", None)
    if isinstance(found, Declaration):
        return found
    name: str = getattr(cls, "__qualname__", "X")
    if isinstance(cls, type) and issubclass(cls, Declared):
        raise SchemeError(f"{name} has no states; write for example draft = State(initial=True)")
    raise SchemeError(f"{cls!r} is no process; write class {name}(Process), or read() it")


def _states(cls: type) -> Iterator[State]:
    seen: set[str] = set()
    for base in reversed(cls.__mro__):
        for key, value in vars(base).items():
            if isinstance(value, State) and key not in seen:
                seen.add(key)
                yield getattr(cls, key)


def _functions(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Methods by name, those of bases first; a command's function as what runs on it: ``on_<command>``."""
    own = vars(Declared)
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] in _LIBRARIES:
            continue
        for key, value in vars(base).items():
            yield from _function(key, value, own)
            for inner, member in _members(value):
                yield from _function(inner, member, own)


def _members(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, State):
        yield from value.members.items()
        for state in value.states:
            yield from _members(state)


def _function(key: str, value: Any, own: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    if isinstance(value, Command):
        yield f"on_{key}", cast("Callable[..., Any]", value.action)
    elif isinstance(value, staticmethod):
        yield key, value.__func__
    elif isinstance(value, property) and value.fget is not None and not key.startswith("__"):
        yield key, value.fget
    elif not (key.startswith("__") or key in own) and callable(value) and not isinstance(value, (type, *_NAMED)):
        yield key, value


def _properties(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in attributes.items() if isinstance(value, property) and value.fget)


def _parameters(cls: type, place: str) -> tuple[Parameter, ...]:
    hints: dict[str, Any] = {}
    try:
        for base in reversed(cls.__mro__):
            if base.__module__.partition(".")[0] not in _LIBRARIES:
                hints |= inspect.get_annotations(base, eval_str=True)
    except (NameError, TypeError, AttributeError) as error:
        raise SchemeError(
            f"{place}: the types of {cls.__name__}'s parameters cannot be read ({error}); import what they name where "
            "the class stands, not only for the type checker"
        ) from None
    found: list[Parameter] = []
    for name, hint in hints.items():
        if name.startswith("_") or get_origin(hint) is ClassVar or hint is ClassVar:
            continue
        found.append(_parameter(cls, name, hint, place))
    return tuple(found)


def _parameter(cls: type, name: str, hint: Any, place: str) -> Parameter:
    temporary = get_origin(hint) is Annotated and TEMPORARY in get_args(hint)
    if temporary:
        args = [arg for arg in get_args(hint) if arg is not TEMPORARY]
        hint = args[0] if len(args) == 1 else Annotated[tuple(args)]
    missing = object()
    default: Any = getattr(cls, name, missing)
    fresh = False
    kind = type(default).__name__
    if _is_field(default):
        fresh = default.default_factory is not dataclasses.MISSING
        default = default.default_factory if fresh else default.default
        if default is dataclasses.MISSING:
            default = missing
    elif kind in ("list", "dict", "set"):
        raise SchemeError(
            f"{place}: the default of {name} is one {kind} for all processes; write "
            f"{name}: ... = dataclasses.field(default_factory={kind})"
        )
    required = default is missing
    if required and temporary:
        raise SchemeError(f"{place}: the temporary parameter {name!r} needs a default: it begins each burst with it")
    return Parameter(
        name=name, hint=hint, required=required, default=None if required else default, temporary=temporary, fresh=fresh
    )


def _is_field(default: object) -> bool:
    return isinstance(default, dataclasses.Field)


def _place(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    frame = inspect.currentframe()
    while frame is not None:  # the line of the class statement that is being run
        if module is not None and frame.f_globals.get("__name__") == cls.__module__:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return f"{cls.__module__}.{cls.__qualname__}"
