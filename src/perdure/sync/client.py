# Produced from perdure/api/client.py by tools/async_to_sync.py; do not edit.
"""A client: calls and operates an app's workflows, runs nothing."""

from __future__ import annotations

import builtins  # `list` is a method here
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar, Unpack

from perdure.api.options import check_id
from perdure.api.queue import Limit, QueueInfo, change_of, check_queue, queue_info
from perdure.api.store import maker
from perdure.client import batches, operate
from perdure.client.questions import StartOptions
from perdure.definitions import Registry
from perdure.model.amounts import check_amount
from perdure.model.batches import BatchInfo
from perdure.model.durations import Duration
from perdure.model.info import WorkflowInfo, info_of
from perdure.model.retention import Rules, read_retention
from perdure.model.schedules import ScheduleInfo
from perdure.model.verbs import Verb
from perdure.operations.batches import check_key
from perdure.operations.retention import Purged, purge
from perdure.operations.size import DatabaseSize, measure
from perdure.policy.rate import Rate
from perdure.query.counts import Count, count_of
from perdure.query.read import read_query
from perdure.runtime import handover, sface
from perdure.runtime.face import Home
from perdure.serde.codec import Codec
from perdure.serde.values import Shape
from perdure.sync.batch import Batch, BatchHandle
from perdure.sync.deployment import DeploymentHandle
from perdure.sync.handle import Handle
from perdure.sync.schedule import ScheduleHandle, create_schedule, list_schedules
from perdure.sync.workflow import Homes, Workflow

if TYPE_CHECKING:  # see LATE
    from perdure.sync.process import ProcessHandle

R = TypeVar("R")
LATE = (f"{__package__}.process",)  # what a call may need, and importing this can spare: loaded where it opens


class QueueLimits(TypedDict, total=False):
    """Limits of a queue; None is no limit."""

    concurrency: int | None
    worker_concurrency: int | None
    rate: Rate | None
    partition_concurrency: int | None
    partition_rate: Rate | None


class Client:
    """Does what a caller or an operator needs, without the app's code.

    ``app`` may be left out if the database holds one. ``codec``: the one that the app has, if it has one.
    ``patience``: how long a call waits for a database that does not answer, else ``PERDURE_PATIENCE``, default for
    ever. Then it raises ``DatabaseUnavailable``, which says whether it may have taken effect (``unknown``).

    >>> # async with Client("postgresql://…", app="shop") as client:
    >>> #     handle = await client.workflow("checkout", returns=str).options(id="order-42").start("42", 1999)
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        app: str | None = None,
        codec: Codec | None = None,
        patience: Duration | None = None,
        home: Home | None = None,
    ) -> None:
        if home is None:
            arguments = {"database": database, "patience": patience}
            home = Home(app or "", arguments, Registry(codec=codec), maker(codec), LATE, sface.FACE)
        self._home = home

    def open(self) -> None:
        """Connect. Raises ``ConfigError``, ``DatabaseTrouble`` (unreachable), ``SchemaMismatch``."""
        sface.open_home(self._home, works=False)

    def close(self) -> None:
        """Let go; closing twice does nothing."""
        sface.close_home(self._home)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def workflow(self, name: str, /, *, returns: type[R]) -> Workflow[..., R]:
        """A workflow by name; its code need not be here."""
        homes = Homes()
        homes.home = self._home
        definition = self._home.registry.workflows.get(name)
        options = None if definition is None else StartOptions(queue=definition.queue)
        return Workflow(name, homes, definition, Shape.of(returns), options)

    def handle(self, id: str, /) -> Handle[Any]:
        """Any workflow, by its id. Does no I/O."""
        return Handle(self._home, check_id(id), Shape.of(Any))

    def process(self, id: str, /) -> ProcessHandle[Any]:
        """Any process, by its id; its class need not be here. Does no I/O.

        >>> # await client.process("vac-7").execute("approve", actor="bob", comment="ok")
        """
        from perdure.sync.process import ProcessHandle  # noqa: PLC0415  see LATE

        return ProcessHandle(self._home, check_id(id), None)

    def list(self, query: str = "", *, limit: int | None = None, all_runs: bool = False) -> Iterator[WorkflowInfo]:
        """Workflows that a ``query`` names, newest first or in its order: the latest run of each id.

        ``limit``: so many at most. ``all_runs``: earlier runs, too. It is read page by page; what starts meanwhile
        shifts nothing. Raises ``QueryError``, a ``ConfigError``, for a query that cannot be read, showing where, and
        ``Misuse`` for a limit that is no whole number from 0 on.

        >>> # async for info in client.list("status = failed AND type = 'checkout' ORDER BY closed DESC", limit=10): …
        """
        asked = read_query(query, self._home.name, all_runs=all_runs)
        most = None if limit is None else check_amount(limit, "limit", 0)
        for row in sface.rows(self._home, asked, most):
            yield info_of(row)

    def count(self, query: str = "", *, all_runs: bool = False) -> Count:
        """How many workflows a ``query`` names: an ``int``, whose ``groups`` tell more if the query says ``GROUP BY``.

        One look at the database, exact. ``all_runs``: earlier runs, too. Raises ``QueryError`` as ``list`` does.

        >>> # await client.count("status = open")                                        # 42
        >>> # (await client.count("status = failed GROUP BY version, error")).groups     # Group(fields=…, count=…) …
        """
        asked = read_query(query, self._home.name, use="count", all_runs=all_runs)
        found = sface.operate(self._home, "client.count()", partial(operate.count, query=asked))
        return count_of(asked, found)

    def recover_executors(self, *executors: str, by: str | None = None, force: bool = False) -> tuple[str, ...]:
        """Give what executors that are gone have left to another; the ids of these workflows.

        ``executors``: labels (all of that name that are gone), or beginnings of incarnations' ids. ``by``: the executor
        that is to take the work, None for any. ``force``: declare dead first who is alive.
        Raises ``ExecutorNotFound``, ``ExecutorAlive`` (saying how long the lease runs), before anything is changed.
        """
        order = partial(handover.order, executors=executors, by=by, force=force)
        return sface.operate(self._home, "client.recover_executors()", order)

    def queues(self) -> builtins.list[QueueInfo]:
        """All queues by name: their limits, and what they hold."""
        found = sface.operate(self._home, "client.queues()", operate.queues)
        return [queue_info(row, count) for row, count in found]

    def set_queue(self, name: str, /, **limits: Unpack[QueueLimits]) -> None:
        """Change limits of a queue, now: ``set_queue("emails", concurrency=20, rate=None)``; None takes one away.

        It holds for every claim that follows, and wins over what the code declares, until ``reset_queue``.
        Raises ``DefinitionError`` for what is no limit.
        """
        given: dict[str, Limit] = dict(limits)  # type: ignore[arg-type]
        order = partial(operate.change_queue, name=check_queue(name), order=change_of(given))
        sface.operate(self._home, "client.set_queue()", order)

    def reset_queue(self, name: str, /) -> None:
        """Give up the changes that were made live: the limits are again what the code declares."""
        order = partial(operate.change_queue, name=check_queue(name), order=change_of({}, reset=True))
        sface.operate(self._home, "client.reset_queue()", order)

    def pause_queue(self, name: str, /) -> None:
        """Let nothing more through the line of a queue; what is in progress goes on."""
        order = partial(operate.change_queue, name=check_queue(name), order=change_of({}, paused=True))
        sface.operate(self._home, "client.pause_queue()", order)

    def resume_queue(self, name: str, /) -> None:
        """Let a paused queue go on."""
        order = partial(operate.change_queue, name=check_queue(name), order=change_of({}, paused=False))
        sface.operate(self._home, "client.resume_queue()", order)

    # -- schedules

    def schedule(self, name: str, /) -> ScheduleHandle:
        """A schedule, by its name. Does no I/O."""
        return ScheduleHandle(self._home, name)

    def schedules(self) -> tuple[ScheduleInfo, ...]:
        """All schedules of the app, by name."""
        return list_schedules(self._home)

    def create_schedule(
        self,
        name: str,
        workflow: Workflow[..., Any] | str,
        cron: str | None = None,
        /,
        *,
        every: Duration | None = None,
        tz: str = "UTC",
        missed: Literal["skip", "once", "all"] = "once",
        overlap: Literal["allow", "skip", "queue"] = "allow",
        catch_up: int | Duration | None = None,
        takes_due: bool | None = None,
        queue: str | None = None,
    ) -> ScheduleHandle:
        """Make a schedule at run time; durable when this returns. The same one again changes nothing.

        ``workflow``: it, or its name. ``takes_due``: whether it is given the nominal time; by default what its code
        says, and where that is not here, not. The rest: see ``Router.schedule``. Raises ``ScheduleConflict`` if the
        name is another schedule's, ``DefinitionError`` for what cannot be.
        """
        return create_schedule(self._home, name, workflow, cron, every, tz, missed, overlap, catch_up, takes_due, queue)

    # -- deployments

    @property
    def deployment(self) -> DeploymentHandle:
        """The versions of the app, and where new work goes. Does no I/O."""
        return DeploymentHandle(self._home)

    # -- batches

    def batch(self, verb: Verb, query: str, /, *, reason: str, key: str | None = None) -> Batch:
        """One verb to all workflows that a query names, to be planned and applied. Does no I/O.

        ``verb``: of ``perdure.batches``. ``reason``: kept with each. ``key``: under which it is ordered once; by
        default a hash of all this. Raises ``ConfigError`` for what is none of these.

        >>> # from perdure.batches import Cancel
        >>> # await client.batch(Cancel(), "status = open AND version = v2", reason="v2 loses orders").apply()
        """
        return Batch(self._home, verb, query, reason, key)

    def batch_handle(self, key: str, /) -> BatchHandle:
        """A batch that was ordered, by its key. Does no I/O."""
        return BatchHandle(self._home, check_key(key))

    def batches(self, *, limit: int = 50) -> builtins.list[BatchInfo]:
        """The latest batches, the newest first. Raises ``Misuse`` for a ``limit`` that is no whole number from 1 on."""
        most = check_amount(limit, "limit")
        return sface.operate(self._home, "client.batches()", partial(batches.listing, limit=most))

    # -- upkeep

    def size(self) -> DatabaseSize:
        """What the database holds: rows and bytes by table and, of this app, by workflow and status; with advice.

        Reads much: each table on SQLite, up to 20,000 workflows anywhere. Changes nothing.
        """
        return sface.operate(self._home, "client.size()", partial(operate.upkeep, work=measure))

    def purge(
        self, *, older_than: Duration, statuses: Collection[str] = (), workflow: str | None = None, plan: bool = False
    ) -> Sequence[Purged]:
        """Delete whole workflows that ended ``older_than`` ago; what was deleted, by name and status.

        ``statuses``: ``completed``, ``failed`` and so on, and ``past`` for earlier runs; default all. ``workflow``: of
        this name only. ``plan``: tell what would go, with rows and bytes, and change nothing. Never an open one, nor
        the child of an open parent. Interrupted, it is simply called again. Raises ``DefinitionError`` for a status
        that is no end.

        >>> # await client.purge(older_than=timedelta(days=30), statuses=["completed"], plan=True)
        """
        age = read_retention(dict.fromkeys(statuses, older_than) if statuses else older_than, "older_than")
        rules = Rules({}, age) if workflow is None else Rules({workflow: age})
        work = partial(operate.upkeep, work=partial(purge, rules=rules, plan=plan))
        return sface.operate(self._home, "client.purge()", work)
