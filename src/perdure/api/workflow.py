"""Workflows: durable functions, started, called and handled by id."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar, Unpack, cast

import msgspec

from perdure.api.handle import Handle
from perdure.api.options import Options, check_id, check_queued, read_options
from perdure.client.questions import StartOptions, StartOrder
from perdure.definitions import WorkflowDef
from perdure.errors import Misuse, NotOpen
from perdure.model.processes import AT
from perdure.model.states import Versioning
from perdure.runtime import aface
from perdure.runtime.context import refuse_in_step
from perdure.runtime.face import Home, home_among, refuse_foreign
from perdure.serde.codec import seal
from perdure.serde.fingerprint import fingerprint_data
from perdure.serde.show import show_none
from perdure.serde.values import ArgsShape, Shape

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Unary(Protocol[A_contra, R_co]):
    """A workflow of one argument."""

    def __call__(self, item: A_contra, /) -> Coroutine[Any, Any, R_co]: ...


class Homes:
    """Where a definition belongs: filled when its router is included in an app."""

    def __init__(self) -> None:
        self.home: Home | None = None
        self.before: list[Home] = []  # other apps, that include the same router, too
        self.included: list[Homes] = []  # of the routers that this one's router includes

    def settle(self, home: Home | None) -> None:
        if home is None:  # it was included in a router that no app includes yet
            return
        if self.home is not None and self.home is not home:
            self.before = [*(one for one in self.before if one is not home), self.home]
        self.home = home
        for homes in self.included:
            homes.settle(home)

    def need(self, name: str) -> Home:
        if self.home is None:
            raise NotOpen(f"workflow {name!r} belongs to a Router that no app includes; call app.include(router)")
        return home_among((*self.before, self.home), name) if self.before else self.home


class Workflow(Generic[P, R]):
    """A durable function. Made by ``@app.workflow``, or by ``client.workflow("name", returns=…)`` without its code.

    Calling it starts it durably and waits for its result; inside a workflow it is a child.
    """

    def __init__(
        self,
        name: str,
        homes: Homes,
        definition: WorkflowDef | None,
        result: Shape,
        options: StartOptions | None = None,
        fn: Callable[..., Any] | None = None,
        given: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.definition = definition
        self._homes = homes
        self._result = result
        self._options = options or StartOptions()
        self._given = given  # the names of the options that were given, not declared
        if fn is not None:
            self.__wrapped__ = fn
            self.__name__ = getattr(fn, "__name__", name)
            self.__qualname__ = getattr(fn, "__qualname__", name)
            self.__doc__ = fn.__doc__
            self.__module__ = getattr(fn, "__module__", __name__)

    # None, None: of Any, Any what overloads give, as those of asyncio.gather, is Any to mypy  # async-only
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        if self._options.session is not None:
            raise Misuse(
                f"workflow {self.name!r} was called with session=, and would wait for an end that cannot come before "
                "your transaction has committed: use .start(…)"
            )
        answer: Coroutine[None, None, R] = aface.call(self._home, self._order(args, kwargs), self._result)
        return answer

    @aface.at_the_call
    async def start(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Start it in the background; durable when this returns: it will run to its end.

        Raises ``WorkflowConflict`` if the id is taken by another call, ``Unserializable`` for an argument that
        cannot be stored (before anything is written).
        """
        order = self._order(args, kwargs)
        if order.options.session is not None:
            begun = await aface.start_within(self._home, order)
        else:
            begun = await aface.start(self._home, order)
        return Handle(self._home, begun.id, self._result, begun.ended)

    @aface.at_the_call
    async def start_many(
        self: Unary[A, T], items: Iterable[A], *, id: Callable[[A], str] | None = None
    ) -> list[Handle[T]]:
        """Start one workflow for each item, in one batch. ``id`` gives each its workflow id."""
        workflow: Workflow[..., T] = cast("Workflow[..., T]", self)
        return await workflow._start_all(list(items), id)

    async def _start_all(self, items: list[Any], id: Callable[[Any], str] | None) -> list[Handle[R]]:
        orders: list[StartOrder] = []
        for item in items:
            order = self._order((item,), {})
            if id is not None:
                options = msgspec.structs.replace(order.options, id=check_id(id(item)))
                order = msgspec.structs.replace(order, options=options)
            orders.append(order)
        if self._options.session is not None:
            return [
                Handle(self._home, (await aface.start_within(self._home, each)).id, self._result) for each in orders
            ]
        if aface.body(self.name) is not None:
            return [Handle(self._home, (await aface.start(self._home, order)).id, self._result) for order in orders]
        begun = await aface.start_many(self._home, orders)
        return [Handle(self._home, each.id, self._result, each.ended) for each in begun]

    def options(self, **options: Unpack[Options]) -> Workflow[P, R]:
        """The same workflow with options for the next starts: ``checkout.options(id="order-42").start(…)``."""
        merged = read_options(options, self._options)
        goes_on = self.definition is None or self.definition.versioning is Versioning.AUTO_UPGRADE
        if "version" in options and goes_on:  # it would not stay there
            merged = msgspec.structs.replace(merged, versioning=Versioning.PINNED)
        return Workflow(
            self.name, self._homes, self.definition, self._result, merged, getattr(self, "__wrapped__", None),
            self._given | options.keys(),
        )  # fmt: skip

    def handle(self, id: str, /) -> Handle[R]:
        """The workflow of that id, typed. Does no I/O."""
        return Handle(self._home, check_id(id), self._result)

    def continue_as_new(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        """End this run here and begin the next one of the same id, with a fresh history. Untaken messages stay.

        The next run has what this one was started with: id, queue, priority, timeout. Of options only ``attributes``
        has a meaning: what the workflow can be searched by from then on. Raises ``Misuse`` for any other.
        """
        execution = aface.need_body(f"{self.name}.continue_as_new")
        refuse_foreign(self._home, execution)
        if refused := ", ".join(f"{name}=" for name in sorted(self._given - {"attributes"})):
            raise Misuse(
                f"{self.name}.continue_as_new was called with {refused}: the next run is the same workflow, which "
                "keeps its id, queue, priority and timeout, and begins at once; of options it takes attributes= alone"
            )
        execution.continue_as_new(self._order(args, kwargs))
        raise AssertionError("continue_as_new does not return")

    @property
    def options_given(self) -> StartOptions:
        """The options of its next starts."""
        return self._options

    @property
    def _home(self) -> Home:
        return self._homes.need(self.name)

    def _order(self, args: Any, kwargs: Any) -> StartOrder:
        decorated = hasattr(self, "__wrapped__")
        # With a session it commits with the step, so that it cannot be done twice.
        if self._options.session is None and (decorated or self._options.id is None):
            refuse_in_step(self.name, foreign=not decorated)
        check_queued(self.name, self._options)
        codec = self._home.registry.codec
        shown = ""
        if self.definition is not None:
            input = _encode_known(self.definition, args, kwargs)
            if aface.in_body():  # shown only where it is recorded: in the history of a parent
                shown = self.definition.args.show(args, kwargs) if codec is None else show_none(args, kwargs)
        else:
            input = _encode_any(args, kwargs)
        return StartOrder(
            name=self.name,
            input=seal(input, "args", codec),
            fingerprint=fingerprint_data(self.name, input),
            shown=shown,
            options=self._options,
        )

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


def _encode_known(definition: WorkflowDef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The arguments of a workflow by its signature; ``TypeError`` naming it if they do not fit."""
    if definition.process is not None and AT in kwargs:
        definition.check(args, kwargs)  # not a caller's: the signature that is shown does not have it
    try:
        return definition.args.encode(args, kwargs)
    except TypeError:
        definition.check(args, kwargs)
        raise


def _anything(*args: Any, **kwargs: Any) -> Any: ...


_ANY_ARGS = ArgsShape.of(_anything)


def _encode_any(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The arguments of a workflow whose code is not here: by their own types."""
    if AT in kwargs:
        raise TypeError(f"{AT!r} is no argument of callers: it holds where a process stands; leave it out")
    return _ANY_ARGS.encode(args, kwargs)
