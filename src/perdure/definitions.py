"""What was declared: workflows, steps, resources, and the registry that finds them by name.

A definition is a plain value; decorated objects of the public face hold one each. The registry of an app refuses two
definitions of one name, showing both places.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from perdure.errors import DefinitionError
from perdure.model.processes import AT
from perdure.model.queues import Limits
from perdure.model.retention import Retention, Rules
from perdure.model.schedules import Spec
from perdure.model.states import Versioning
from perdure.policy.retry import Retry
from perdure.policy.rules import Policy
from perdure.serde.codec import Codec
from perdure.serde.values import ArgsShape, Shape

if TYPE_CHECKING:  # loaded by who declares a process
    from perdure.schemes.declaration import Declaration


class StepDef(msgspec.Struct, frozen=True, eq=False):
    """A function whose outcome is recorded once."""

    name: str
    fn: Callable[..., Any]
    is_async: bool
    result: Shape
    place: str
    retry: Retry | None = None
    timeout: int | None = None  # microseconds
    pure: bool = False
    at_most_once: bool = False
    signature: inspect.Signature | None = None
    plain_args: tuple[int, int] | None = None  # so many positional arguments always fit
    is_method: bool = False
    hidden: frozenset[str | int] = frozenset()  # arguments never shown
    source: Callable[[], Any] | None = None  # of a transaction: what opens the session that is its first argument
    calls: Any = None  # of a transaction: the class of its calls, of a floor above; no other step need load it

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` naming the step if a call does not fit it: now, not when the body runs."""
        if self.plain_args is not None and not kwargs and self.plain_args[0] <= len(args) <= self.plain_args[1]:
            return
        if self.signature is not None:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"step {self.name}{self.signature}: {error}; declared at {self.place}") from None


class WorkflowDef(msgspec.Struct, frozen=True, eq=False):
    """A durable function."""

    name: str
    fn: Callable[..., Any]
    is_async: bool
    args: ArgsShape
    result: Shape
    place: str
    timeout: int | None = None  # microseconds, from the first claim
    max_deaths: int = 10
    restartable: bool = False  # it may run again from its start, by whoever recovers it
    versioning: Versioning = Versioning.UNDECLARED
    queue: str | None = None
    retention: Retention | None = None  # how long it is kept after its end; None: as the app says
    process: Declaration | None = None  # of a process: what its body interprets

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` naming the workflow if a call does not fit it."""
        what, signature = ("workflow", self.args.signature) if self.process is None else ("process", _own(self.args))
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{what} {self.name}{signature}: {error}; declared at {self.place}") from None


def _own(args: ArgsShape) -> inspect.Signature:
    """The parameters of a process, without where it stands."""
    return args.signature.replace(parameters=[p for name, p in args.signature.parameters.items() if name != AT])


class ResourceDef(msgspec.Struct, frozen=True, eq=False):
    """A generator function whose one value is open while the app works."""

    name: str
    fn: Callable[[], Any]
    is_async: bool
    place: str
    opened: list[Any] = []  # the generator, while open
    value: list[Any] = []  # its value, while open


class QueueDef(msgspec.Struct, frozen=True, eq=False):
    """A queue and its limits, as the code declares them."""

    name: str
    limits: Limits
    place: str


class ScheduleDef(msgspec.Struct, frozen=True, eq=False):
    """When a workflow is started by itself."""

    name: str
    spec: Spec
    place: str


def gives_coroutine(fn: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine, as far as can be known: an ``async def``, or an object of a class with one."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def place_of(fn: Callable[..., Any]) -> str:
    """``file:line`` of a function, for messages that show where something was declared."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(fn)


def place_of_caller() -> str:
    """``file:line`` where the function that asks was called."""
    frame = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # inspect.stack() reads all sources: 40 ms
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def plain_args(signature: inspect.Signature) -> tuple[int, int] | None:
    """How many positional arguments always fit; None if names or the number are not that simple."""
    least = most = 0
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return None
        most += 1
        least += parameter.default is parameter.empty
    return least, most


D = TypeVar("D", WorkflowDef, StepDef, ResourceDef, QueueDef, ScheduleDef)


def _reloaded(before: object, after: object) -> str:
    """A hint, where the same function of the same module was declared again."""
    one, other = getattr(before, "fn", None), getattr(after, "fn", None)
    if getattr(one, "__globals__", None) is None or one is None or other is None:
        return ""
    same = one.__globals__ is getattr(other, "__globals__", None) and one.__qualname__ == other.__qualname__
    return ", or, if its module or cell ran again, make the App anew in there, too, or a new process" if same else ""


def _put(known: dict[str, D], definition: D, what: str) -> None:
    other = known.get(definition.name)
    if other is not None and other.place != definition.place:
        raise DefinitionError(
            f"two {what}s are named {definition.name!r}: {other.place} and {definition.place}; "
            f"give one of them another name: {'app.queue(…)' if what == 'queue' else f'@app.{what}(name=…)'}"
            f"{_reloaded(other, definition)}"
        )
    known[definition.name] = definition


class Registry(msgspec.Struct, eq=False):
    """Definitions by name, one kind apart from the other."""

    workflows: dict[str, WorkflowDef] = {}
    steps: dict[str, StepDef] = {}
    resources: dict[str, ResourceDef] = {}
    queues: dict[str, QueueDef] = {}
    schedules: dict[str, ScheduleDef] = {}
    included_in: list[Registry] = []  # these also get what is added later
    policies: list[Policy] = []  # as declared
    app: str = ""  # whose definitions they are; "": a router's, or a client's
    codec: Codec | None = None  # how values of the app are stored; None: as they are
    retention: Retention = Retention({})  # how long what has no rule of its own is kept

    def add(self, definition: WorkflowDef | StepDef | ResourceDef | QueueDef | ScheduleDef) -> None:
        """Raises ``DefinitionError`` if another function has the name already."""
        match definition:
            case WorkflowDef():
                _put(self.workflows, definition, "workflow")
            case StepDef():
                _put(self.steps, definition, "step")
            case ResourceDef():
                _put(self.resources, definition, "resource")
            case QueueDef():
                _put(self.queues, definition, "queue")
            case ScheduleDef():
                _put(self.schedules, definition, "schedule")
        for registry in self.included_in:
            registry.add(definition)

    @property
    def rules(self) -> Rules:
        """How long everything is kept after its end."""
        own = {name: d.retention for name, d in self.workflows.items() if d.retention is not None}
        return Rules(own, self.retention, frozenset(n for n, d in self.workflows.items() if d.process is not None))

    @property
    def limits(self) -> dict[str, Limits]:
        """The limits of every queue, by name."""
        return {name: queue.limits for name, queue in self.queues.items()}

    def add_policy(self, policy: Policy) -> None:
        """Take a recovery policy, once however often its router is included."""
        if policy not in self.policies:
            self.policies.append(policy)
        for registry in self.included_in:
            registry.add_policy(policy)

    def include(self, other: Registry, prefix: str = "") -> None:
        """Take another registry's definitions over (their names already carry their own prefix)."""
        other.included_in.append(self)
        everything: list[WorkflowDef | StepDef | ResourceDef | QueueDef | ScheduleDef] = [*other.workflows.values()]
        everything += [*other.steps.values(), *other.resources.values()]
        for definition in [*everything, *other.queues.values(), *other.schedules.values()]:
            self.add(definition)
        for policy in other.policies:
            self.add_policy(policy)
