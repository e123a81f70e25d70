"""Routers hold definitions; an app is a router with a database."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from perdure.api.keys import check_name
from perdure.api.policies import Asked, declare
from perdure.api.queue import Queue, check_queue, limits_of
from perdure.api.resource import Resource
from perdure.api.schedule import W, declared
from perdure.api.step import Step, StepDecorator, check_retry, check_step
from perdure.api.workflow import Homes, Workflow
from perdure.client.questions import StartOptions
from perdure.definitions import (
    QueueDef,
    Registry,
    ResourceDef,
    StepDef,
    WorkflowDef,
    gives_coroutine,
    place_of,
    place_of_caller,
    plain_args,
)
from perdure.errors import DefinitionError
from perdure.model.durations import Duration, to_us
from perdure.model.queues import Limits
from perdure.model.retention import Retain, read_retention
from perdure.model.states import Versioning
from perdure.policy.rate import Rate
from perdure.policy.retry import Retry
from perdure.runtime import aface
from perdure.serde.hints import call_hints
from perdure.serde.values import ArgsShape, Shape

if TYPE_CHECKING:  # loaded by who declares one
    from perdure.schemes.declared import Declared

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")
D = TypeVar("D", bound="Declared")


class Router:
    """Holds definitions without an app: ``billing = Router(prefix="billing.")``, later ``app.include(billing)``.

    ``prefix`` is put before each name as it stands, and so brings its own separator: that of ``billing.invoice``.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._registry = Registry()
        self._homes = Homes()

    # -- steps

    @property
    def step(self) -> StepDecorator:
        """Declare a step: ``@app.step`` or ``@app.step(retry=Retry(5, on=ConnectionError), timeout=30)``.

        ``name``: default the function's qualified name. ``retry``: default none. ``timeout``: of one attempt.
        ``pure``: has no effect outside, so it need not wait for the disk and may run again after a crash.
        ``at_most_once``: not run again when its executor died meanwhile; the workflow then catches
        ``StepOutcomeUnknown``. Every other step runs at least once.
        ``await app.step(fn)(…)`` makes an undecorated function a step where it is called.
        """
        return cast("StepDecorator", self._step)

    def _step(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        pure: bool = False,
        at_most_once: bool = False,
    ) -> Any:
        check_retry(retry)
        if fn is None:
            return partial(self._step, name=name, retry=retry, timeout=timeout, pure=pure, at_most_once=at_most_once)
        if at_most_once and (retry is not None or pure):
            other = "retry" if retry is not None else "pure"
            raise DefinitionError(
                f"at_most_once=True and {other}= contradict each other: such a step is never run again"
            )
        signature = check_step(fn)
        parameters = list(signature.parameters)
        definition = StepDef(
            name=self._named(name, fn),
            fn=fn,
            is_async=gives_coroutine(fn),
            result=Shape.of(call_hints(fn).get("return", Any)),
            place=place_of(fn),
            retry=retry,
            timeout=None if timeout is None else to_us(timeout, "timeout"),
            pure=pure,
            at_most_once=at_most_once,
            signature=signature,
            plain_args=plain_args(signature),
            is_method=bool(parameters) and parameters[0] == "self",
            hidden=ArgsShape.of(fn).hidden,
        )
        self._registry.add(definition)
        return Step[Any, Any](definition, fn)

    # -- transactions

    # async-only
    @overload
    def transaction(
        self,
        source: Callable[[], AbstractAsyncContextManager[S, bool | None]],
        /,
        *,
        name: str | None = ...,
        retry: Retry | None = ...,
        timeout: Duration | None = ...,
    ) -> Callable[[Callable[Concatenate[S, P], Coroutine[Any, Any, R]]], Step[P, R]]: ...
    @overload
    def transaction(
        self,
        source: Callable[[], AbstractContextManager[S, bool | None]],
        /,
        *,
        name: str | None = ...,
        retry: Retry | None = ...,
        timeout: Duration | None = ...,
    ) -> Callable[[Callable[Concatenate[S, P], R]], Step[P, R]]: ...
    # end
    def transaction(
        self,
        source: Any,  # async-only
        # sync-only: source: Callable[[], AbstractContextManager[S, bool | None]],
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> Any:  # async-only
        # sync-only: ) -> Callable[[Callable[Concatenate[S, P], R]], Step[P, R]]:
        """Declare a transaction: a step that gets a session, whose writes commit together with the step's record.

        ``source``: opens a session: ``sessionmaker(engine)``, ``engine.begin``, ``pool.connection``, ``pool.acquire``,
        or a function that gives a connection. The body must not commit. It runs again, on a new snapshot, when the
        database rolls it back for another's sake; it commits once. An exception rolls it back and is its outcome.
        Outside a workflow, the function in a transaction of its own.

        >>> # @shop.transaction(Session)
        >>> # async def reserve(db: AsyncSession, sku: str) -> None: ...
        """
        from perdure.api.transaction import check_source, transaction_of  # noqa: PLC0415  for sessions: few need it

        check_source(source)

        def declare(fn: Any) -> Step[Any, Any]:
            definition = transaction_of(fn, source, partial(self._named, name), retry, timeout)
            self._registry.add(definition)
            return Step[Any, Any](definition, fn)

        return declare

    # -- workflows

    @overload
    def workflow(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = ...,
        versioning: Literal["pinned", "auto_upgrade"] | None = ...,
        queue: Queue | str | None = ...,
        timeout: Duration | None = ...,
        max_deaths: int = ...,
        restartable: bool = ...,
        retain: Retain | None = ...,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
    def workflow(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        versioning: Literal["pinned", "auto_upgrade"] | None = None,
        queue: Queue | str | None = None,
        timeout: Duration | None = None,
        max_deaths: int = 10,
        restartable: bool = False,
        retain: Retain | None = None,
    ) -> Any:
        """Declare a workflow: ``@app.workflow`` or ``@app.workflow(timeout=3600)``.

        ``versioning``: what unfinished runs do when other code is deployed: stay with the version that began them
        (``pinned``), go on with the current one (``auto_upgrade``); default: stay while an executor of it lives.
        ``queue``: in whose line it stands, unless its options name another.
        ``timeout``: from the first moment it runs; then it is cancelled and ends as timed_out. ``max_deaths``: so many
        executors may die while it is in flight before it is held. ``restartable``: it may safely run again from its
        start, which ``perdure recovery plan`` then proposes after a bad version. ``retain``: how long it is kept after
        its end, a duration, ``"forever"``, or these by status (``past``: earlier runs); default: as the app says.
        Raises ``DefinitionError`` for what cannot be durable: methods, functions of the other face, duplicate names.
        """
        if fn is None:
            return partial(
                self.workflow,
                name=name,
                versioning=versioning,
                queue=queue,
                timeout=timeout,
                max_deaths=max_deaths,
                restartable=restartable,
                retain=retain,
            )
        self._check_workflow(fn)
        if not isinstance(max_deaths, int) or max_deaths < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  users without a checker
            raise DefinitionError(f"max_deaths={max_deaths!r} cannot be: so many executors may die, at least 1")
        if versioning not in (None, "pinned", "auto_upgrade"):
            raise DefinitionError(
                f"versioning={versioning!r} is none of 'pinned', 'auto_upgrade'; leave it out for the rule that work "
                "stays with its version while an executor of it lives"
            )
        args = ArgsShape.of(fn)
        definition = WorkflowDef(
            name=self._named(name, fn),
            fn=fn,
            is_async=inspect.iscoroutinefunction(fn),
            args=args,
            result=Shape.of(args.returns),
            place=place_of(fn),
            timeout=None if timeout is None else to_us(timeout, "timeout"),
            max_deaths=max_deaths,
            restartable=restartable,
            versioning=Versioning(versioning or "undeclared"),
            queue=None if queue is None else check_queue(queue.name if isinstance(queue, Queue) else queue),
            retention=None if retain is None else read_retention(retain),
        )
        self._registry.add(definition)
        options = StartOptions(timeout=definition.timeout, versioning=definition.versioning, queue=definition.queue)
        return Workflow[Any, Any](definition.name, self._homes, definition, definition.result, options, fn)

    def _check_workflow(self, fn: Any) -> None:
        place = place_of(fn) if callable(fn) else repr(fn)
        called = getattr(fn, "__qualname__", type(fn).__qualname__)
        if isinstance(fn, (staticmethod, classmethod)) or not callable(fn):
            raise DefinitionError(f"@app.workflow was put on {fn!r}; a workflow is a plain function of a module")
        if inspect.ismethod(fn):
            fn = fn.__func__
        parameters = list(inspect.signature(fn).parameters)
        if parameters and parameters[0] in ("self", "cls") and "." in getattr(fn, "__qualname__", ""):
            raise DefinitionError(
                f"{fn.__qualname__} ({place}) is a method: no {parameters[0]!r} survives a crash. Make it a function, "
                "and hand what the object held to its steps through a resource (@app.resource)"
            )
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(
                f"workflow {called} ({place}) is a generator, but a workflow has one result: return it, and "
                "publish what comes before it with set_event"
            )
        face = aface.FACE
        is_async = inspect.iscoroutinefunction(fn)
        if is_async is not (face == "perdure"):
            here, other = ("async def", "perdure.sync") if face == "perdure" else ("def", "perdure")
            raise DefinitionError(
                f"workflow {called} ({place}) must be {here!r} in {face}; "
                f"write it so, or import App from {other}: the body has the colour of its face"
            )

    # -- processes

    @overload
    def process(self, cls: type[D], /) -> type[D]: ...
    @overload
    def process(
        self,
        /,
        *,
        name: str | None = ...,
        on_crash: Literal["status", "resume"] | None = ...,
        versioning: Literal["pinned", "auto_upgrade"] | None = ...,
        queue: Queue | str | None = ...,
        max_deaths: int = ...,
        retain: Retain | None = ...,
    ) -> Callable[[type[D]], type[D]]: ...
    def process(
        self,
        cls: Any = None,
        /,
        *,
        name: str | None = None,
        on_crash: Literal["status", "resume"] | None = None,
        versioning: Literal["pinned", "auto_upgrade"] | None = None,
        queue: Queue | str | None = None,
        max_deaths: int = 10,
        retain: Retain | None = None,
    ) -> Any:
        """Declare a process over a class of ``perdure.process``: ``@app.process``, ``@app.process(on_crash="resume")``.

        ``on_crash``: what becomes of one that was Running when its executor died: ``status`` (the default), Error if a
        command or a timer leaves the state that is persisted, else Terminated; ``resume``: it goes on from its last
        recorded step. The others as of ``@app.workflow``. Raises ``DefinitionError``.
        """
        if cls is None:
            return partial(
                self.process, name=name, on_crash=on_crash, versioning=versioning, queue=queue, max_deaths=max_deaths,
                retain=retain,
            )  # fmt: skip
        from perdure.api.registered import define, register  # noqa: PLC0415  brings all of schemes, which few apps need

        definition = define(
            cls,
            partial(self._named, name),
            on_crash,
            max_deaths=max_deaths,
            versioning=Versioning(versioning or "undeclared"),
            queue=None if queue is None else check_queue(queue.name if isinstance(queue, Queue) else queue),
            retention=None if retain is None else read_retention(retain),
        )
        self._registry.add(definition)
        options = StartOptions(versioning=definition.versioning, queue=definition.queue)
        shape = definition.result
        workflow = Workflow[Any, Any](definition.name, self._homes, definition, shape, options, definition.fn)
        register(cls, definition, workflow)
        return cls

    # -- schedules

    def schedule(
        self,
        cron: str | None = None,
        /,
        *,
        every: Duration | None = None,
        name: str | None = None,
        tz: str = "UTC",
        missed: Literal["skip", "once", "all"] = "once",
        overlap: Literal["allow", "skip", "queue"] = "allow",
        catch_up: int | Duration | None = None,
    ) -> Callable[[W], W]:
        """Declare when a workflow starts by itself: ``@app.schedule("0 2 * * *", tz="Europe/Berlin")`` above it.

        The workflow takes nothing, or the nominal time as an aware datetime in ``tz``. ``cron``: five fields, or six
        with seconds first; or ``every``: a duration from one second, counted from the first launch. ``name``: default
        the workflow's. ``missed``: of the times at which nobody could start it, when somebody can, ``once`` fires the
        latest, ``all`` each, ``skip`` none. ``catch_up``: the bound of that, so many times (default the latest 100) or
        a ``timedelta``. ``overlap``: while the one before is open, start all the same (``allow``), ``skip``, or
        ``queue`` until it has ended. Raises ``DefinitionError`` for what cannot be.
        """

        def decorate(workflow: W) -> W:
            self._registry.add(declared(workflow, self._prefix, name, cron, every, tz, missed, overlap, catch_up))
            return workflow

        return decorate

    # -- resources

    def resource(self, fn: Callable[[], AsyncIterator[T]], /) -> Resource[T]:
        """Declare a resource over a generator function that yields one value.

        Opened before the first workflow is claimed, closed after the app has drained.
        """
        face = aface.FACE
        is_generator = inspect.isasyncgenfunction(fn) if face == "perdure" else inspect.isgeneratorfunction(fn)
        if not is_generator:
            raise DefinitionError(
                f"resource {getattr(fn, '__qualname__', fn)!r} must be a generator function of the face {face} "
                "that yields its one value"
            )
        definition = ResourceDef(self._named(None, fn), fn, face == "perdure", place_of(fn))
        self._registry.add(definition)
        return Resource(definition)

    # -- queues

    def queue(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        worker_concurrency: int | None = None,
        rate: Rate | None = None,
        partition_concurrency: int | None = None,
        partition_rate: Rate | None = None,
    ) -> Queue:
        """Declare a queue: ``emails = app.queue("emails", concurrency=10, rate=Rate(100, per=60))``.

        ``concurrency``: so many of its workflows are in progress at a time, over all executors (waiting ones count,
        held ones do not); ``worker_concurrency``: on each executor. ``rate``: how many may begin. ``partition_…``: the
        same of each partition (``.options(partition=customer)``). What is left out is not limited. These are defaults:
        a change made live wins over them until it is reset. A queue's name is the app's, whatever router declares it.
        """
        limits = Limits(
            **limits_of({
                "concurrency": concurrency, "worker_concurrency": worker_concurrency, "rate": rate,
                "partition_concurrency": partition_concurrency, "partition_rate": partition_rate,
            })
        )  # fmt: skip
        self._registry.add(QueueDef(check_queue(name), limits, place_of_caller()))
        return Queue(name, limits)

    # -- recovery policies

    def recovery_policy(
        self, target: object = None, *, on: Collection[str] = ("crash",), order: int = 100
    ) -> Callable[[Asked], Asked]:
        """Declare what is asked when a workflow was interrupted: a function ``(incident) -> decision``.

        Or a class with ``needs(name, status)`` and ``decide(incident)``, made once, without arguments. ``target``: a
        workflow, its name, or nothing for all that are declared here. ``on``: ``crash``, ``drained``, ``error``,
        ``version``. The least ``order`` is asked first, and the first that answers anything but ``Default()`` decides.
        """
        return partial(self._recovery_policy, target, on, order)

    def on_error(self, target: object = None, *, order: int = 100) -> Callable[[Asked], Asked]:
        """Declare what is asked before an exception fails a workflow: ``recovery_policy(…, on={"error"})``."""
        return partial(self._recovery_policy, target, ("error",), order)

    def _recovery_policy(self, target: object, on: Collection[str], order: int, fn: Any) -> Any:
        self._registry.add_policy(declare(fn, target, on, order, self._registry.workflows, aface.FACE))
        return fn

    # -- the house

    def include(self, router: Router, /) -> None:
        """Take a router's definitions over. Raises ``DefinitionError`` for a duplicate name, showing both places."""
        if not isinstance(cast(object, router), Router):
            face = aface.FACE
            raise DefinitionError(f"{router!r} is no Router of {face}; import App and Router from the same face")
        self._registry.include(router._registry)
        self._homes.included.append(router._homes)
        router._homes.settle(self._homes.home)

    def _named(self, name: str | None, fn: Any) -> str:
        plain = (
            name if name is not None else getattr(fn, "__qualname__", type(fn).__qualname__).replace("<locals>.", "")
        )
        return check_name(self._prefix + check_name(plain, "workflow or step"), "workflow or step")
