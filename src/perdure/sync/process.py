# Produced from perdure/api/process.py by tools/async_to_sync.py; do not edit.
"""Processes: workflows that a scheme drives. How one is started, ordered about and asked where it stands."""

from __future__ import annotations

import uuid as _uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, cast, dataclass_transform

import msgspec

from perdure.api.options import Options, check_id
from perdure.client.patience import part
from perdure.client.questions import DeleteOf, ProcessOf, SendTo, TerminateOf
from perdure.errors import (
    Busy,
    Interrupted,
    Misuse,
    NotAllowed,
    NotAvailable,
    NotOpen,
    ProcessError,
    StateNotFound,
    WorkflowRefused,
)
from perdure.model.durations import Duration, to_us
from perdure.model.processes import (
    HISTORY,
    ORDERS,
    Entry,
    ProcessStatus,
    ProcessStep,
    Seen,
    steps_of,
)
from perdure.model.processes import Order as Ordered
from perdure.model.states import Reason, Status
from perdure.operations.look import Order as By
from perdure.operations.look import who
from perdure.query.conditions import where
from perdure.runtime import sface
from perdure.runtime.face import Home
from perdure.runtime.process_body import ENTRY
from perdure.runtime.process_calls import Instance
from perdure.runtime.process_children import family
from perdure.schemes.declaration import Declaration
from perdure.schemes.declared import Declared, Temporary
from perdure.schemes.drawn import counted
from perdure.schemes.form import Parameter
from perdure.schemes.grammar import Command, HistoryState, Order, State, Transition
from perdure.schemes.mermaid import mermaid
from perdure.schemes.reading import read
from perdure.schemes.svg import svg
from perdure.serde.codec import seal
from perdure.serde.failures import decode_for_caller
from perdure.serde.values import Shape
from perdure.sync.handle import Handle
from perdure.sync.registered import Registered
from perdure.sync.workflow import Workflow

__all__ = [
    "Command",
    "HistoryState",
    "Order",
    "Parameter",
    "Process",
    "ProcessHandle",
    "ProcessStarter",
    "ProcessStatus",
    "ProcessStep",
    "State",
    "Temporary",
    "Transition",
    "counted",
    "mermaid",
    "read",
    "svg",
]

P = ParamSpec("P")
T = TypeVar("T")
JSON = Shape.of(Any)
# Microseconds that an order waits, at least, for one that is Running though nobody has ordered anything of it: it has
# been claimed and nothing is on record (by new code, by the executor after a death, for another's message), it is
# queued to go on, or its initial state's actions are under way.
SETTLE = 5_000_000


class ProcessHandle(Handle[T]):
    """A process, by its id. Making one does no I/O; inside a workflow, what it does or answers is recorded.

    An id of a process of another class, or of a workflow that waits or has completed, is told by ``ProcessError``.

    >>> # await Vacation.handle("vac-7").execute(Vacation.approve(comment="ok"), actor="bob")
    """

    def __init__(
        self, home: Home, id: str, registered: Registered | None, ended: object = None, patience: int = 0
    ) -> None:
        super().__init__(home, id, JSON, ended)
        self._registered = registered
        self._patience = patience

    def within(self, timeout: Duration, /) -> ProcessHandle[T]:
        """The same, whose orders wait so long for a process that is Running, before they raise ``Busy``."""
        return ProcessHandle(self._home, self.id, self._registered, self._ended, to_us(timeout, "within"))

    # -- orders

    @sface.at_the_call
    def execute(
        self, command: Transition | Command[...] | Order | str, /, *, actor: str | None = None, **parameters: object
    ) -> None:
        """Execute a command; returns when the burst that it began has ended.

        ``command``: ``Vacation.submit``, ``Vacation.approve(comment="ok")``, or its name with its parameters. At most
        once: whoever sends the same order twice at an instant has one done.

        Raises ``Busy`` while an action of the process is under way (see ``within``) or if somebody was quicker,
        ``NotAvailable``, ``NotAllowed``, ``Interrupted`` if the executor died meanwhile, or the process was held before
        it took the order (which it does when it is released); or what its action raised. One that is Running without
        an action (right after its start, just taken over by new code) is waited for, for 5 s.

        >>> # await p.execute("approve", actor="bob", comment="ok")
        """
        given = dict(parameters)
        if isinstance(command, Order):
            given = {**command.parameters, **given}
        name = command if isinstance(command, str) else command.name
        data = self._encoded_for(name, given)
        self._order(Ordered(kind="command", token="", name=name, actor=actor, parameters=data))

    @sface.at_the_call
    def set_state(
        self,
        state: State | str,
        /,
        *,
        run: bool = True,
        set: Mapping[str, object] | None = None,
        actor: str | None = None,
        reason: str = "",
    ) -> None:
        """Put the process into a settable state by hand, whatever it stands in; automatic exits are taken from there.

        ``run``: with the actions of that state. ``set``: parameters to change first. Of a process that is Terminated,
        too. Raises ``Busy``, ``StateNotFound``, ``ProcessError``, or what an action raised.
        """
        name = state if isinstance(state, str) else state.name
        ordered = Ordered(
            kind="set", token="", name=name, run=run, set=self._encoded(set or {}), actor=actor, because=reason
        )
        self._order(ordered)

    @sface.at_the_call
    def resume(  # type: ignore[override]  # a process tells whether it moved, not the status of its row
        self, *, version: str | None = None, force: bool = False, reason: str = ""
    ) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]  as above
        """Let the process go on along automatic exits, without running its state's actions again; whether it moved.

        Where none holds it is Idled. ``version``, ``force``: as of a workflow that is held for its code's sake.
        Raises ``Busy``, ``ProcessError``, or what an action raised.
        """
        if version is not None or force:
            super().resume(version=version, force=force, reason=reason)
            return True
        return self._order(Ordered(kind="resume", token="", because=reason)).answer != "not_resumed"

    @sface.at_the_call
    def delete(self) -> None:
        """Forget it, its history and the processes and workflows that it began: ended, or at rest.

        What was begun with ``on_parent_close="abandon"`` is left alone. Not inside a workflow. Raises ``Busy`` while it
        is Running, or if one is open that was begun with ``"wait"``; ``WorkflowNotFound``.
        """
        self._at_rest()
        found = sface.operate(self._home, "process.delete()", partial(family, id=self.id))
        if (row := found.awaited) is not None:
            raise Busy(
                f"process {self.id!r} is not deleted: {row.id!r} is {row.status}, and the end of {row.parent!r} has to "
                "wait for it (on_parent_close='wait'); delete it when that has ended, or end it: perdure workflow "
                f"terminate {row.id}"
            )
        # Parents are ended first, so that the ends of what they began tell them nothing; and forgotten last, so that
        # the family of one whose deletion was cut off is found again.
        members = (self.id, *found.ids)
        with part("delete it again, which goes on with what is left", begun=True):
            for id in members:
                self._end(id)
            for id in reversed(members):
                self._forget(id)

    def _end(self, id: str) -> None:
        for row in sface.rows(self._home, where(ids=[id]), 1):
            if row.status.open:
                with suppress(WorkflowRefused):  # its own end, or its parent's, was quicker
                    sface.ask(self._home, TerminateOf(id=id, order=By(by=who(), reason="deleted")))

    def _forget(self, id: str) -> None:
        sface.ask(self._home, DeleteOf(id=id))

    def _at_rest(self) -> Seen:
        question = ProcessOf(self.id, rest=self._patience, settle=SETTLE)
        seen = self._own(sface.ask(self._home, question))
        if seen.process_status is ProcessStatus.RUNNING:
            raise Busy(_running(self.id, seen, max(self._patience, SETTLE)))
        return seen

    def _order(self, order: Ordered) -> Entry:
        seen = self._at_rest()
        if not seen.status.open:
            raise _over(self.id, seen)
        if (held := _held(self.id, seen)) is not None:
            raise NotAvailable(f"process {self.id!r} takes no orders: it {held}")
        begun = bool(seen.at.state)
        execution = sface.body("an order")
        token = (_uuid.uuid4() if execution is None else execution.chance.uuid4()).hex
        order = msgspec.structs.replace(order, token=token, seen=seen.at.bursts if begun else None)
        data = seal(msgspec.json.encode(order), "order", self._home.registry.codec)
        advice = f"the order is carried out at most once; see the history of process {self.id!r} before you repeat it"
        with part(advice):
            sface.ask(self._home, SendTo(self.id, ORDERS, data))
        with part(advice, begun=True):
            return self._carried_out(order, seen)

    def _carried_out(self, order: Ordered, seen: Seen) -> Entry:
        """What came of an order that was sent."""
        execution = sface.body("an order")
        entries = sface.StreamReader(self._home, self.id, HISTORY, ENTRY, seen.at.entries)
        patience = SETTLE if execution is None else None  # in a body each look would be a record
        while (some := entries.some(patience)) is not None:
            for entry in some:
                if entry.token == order.token:
                    return self._answered(entry, order)
            if not some and (held := _held(self.id, self._seen())) is not None:
                raise Interrupted(
                    f"{order.name or order.kind!r} was sent, but process {self.id!r} {held}. Then it is carried out, "
                    "unless the process has been moved before"
                )
        ended = self._seen()
        if ended.process_status is ProcessStatus.FINALIZED:
            raise _over(self.id, ended)
        raise Interrupted(f"process {self.id!r} ended before {order.name or order.kind!r} was carried out")

    def _answered(self, entry: Entry, order: Ordered) -> Entry:
        what = f"process {self.id!r}: "
        match entry.answer:
            case "" | "not_resumed":
                return entry
            case "busy":
                raise Busy(what + entry.because)
            case "not_available":
                raise NotAvailable(what + entry.because)
            case "not_allowed":
                raise NotAllowed(what + entry.because)
            case "failed":
                raise decode_for_caller(entry.failure.encode())
            case "interrupted":
                raise Interrupted(
                    f"{what}its executor was lost while {order.name or order.kind!r} was carried out; it stands in "
                    f"state {entry.source!r} ({entry.because or entry.status})"
                )
            case _ if order.kind == "set" and "has no state" in entry.because:
                raise StateNotFound(what + entry.because)
            case _:
                raise ProcessError(what + entry.because)

    def _encoded_for(self, command: str, given: Mapping[str, object]) -> dict[str, msgspec.Raw]:
        declared = None if self._registered is None else self._registered.declaration.scheme.command(command)
        hints = {} if declared is None else {parameter.name: parameter.hint for parameter in declared.parameters}
        return {name: msgspec.Raw(Shape.of(hints.get(name, Any)).encode(value, name)) for name, value in given.items()}

    def _encoded(self, given: Mapping[str, object]) -> dict[str, msgspec.Raw]:
        fields = () if self._registered is None else self._registered.declaration.scheme.parameters
        hints = {parameter.name: parameter.hint for parameter in fields}
        return {name: msgspec.Raw(Shape.of(hints.get(name, Any)).encode(value, name)) for name, value in given.items()}

    # -- questions

    @sface.at_the_call
    def status(self) -> ProcessStatus:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  a process has statuses of its own
        """Initialized, Running, Idled, Finalized, Error or Terminated. Raises ``WorkflowNotFound``.

        One that is held where it rests (paused, no code for it) keeps its status, and takes no orders:
        ``(p.info()).reason`` says why.
        """
        return self._seen().process_status

    @sface.at_the_call
    def state(self) -> str:
        """The state that it stands in: the latest whose actions have returned; "" before the first."""
        return self._seen().at.state

    @sface.at_the_call
    def parameters(self) -> T:
        """Its parameters, as of the state that it stands in: an instance of its class. Raises ``WorkflowNotFound``."""
        registered = self._code("parameters")
        seen = self._seen()
        _, values = registered.args.decode(seen.input if seen.stands is None else seen.stands)
        known = {parameter.name for parameter in registered.declaration.scheme.parameters}
        return cast("T", registered.declaration.make({k: v for k, v in values.items() if k in known}))

    @sface.at_the_call
    def commands(self, *, actor: str | None = None) -> Sequence[Command[...]]:
        """The commands that an actor can give it now; without an actor: that anybody could.

        None while it is Running or held. Conditions and actors are asked here, with its parameters as they are.
        """
        registered = self._code("commands")
        seen = self._seen()
        if not seen.orderable:
            return []
        _, values = registered.args.decode(seen.input)
        known = {parameter.name for parameter in registered.declaration.scheme.parameters}
        instance = Instance(registered.declaration, {k: v for k, v in values.items() if k in known})
        found = sface.drive(instance.available(seen.at.state, actor, anybody=actor is None))
        return [_command(registered.declaration, name) for name in found]

    @sface.at_the_call
    def history(self) -> list[ProcessStep]:
        """What it did, the oldest first: from, to, by which trigger, who, when, how long. Not what was refused."""
        entries: list[Entry] = []
        while True:
            seen = self._own(sface.ask(self._home, ProcessOf(self.id, since=len(entries))))
            if not seen.lines:
                return steps_of(entries)
            entries += [ENTRY.decode(line) for line in seen.lines]

    @sface.at_the_call
    def result(self, *, timeout: Duration | None = None) -> T:
        """Wait until it is Finalized: its parameters then. Raises as ``Handle.result`` does."""
        super().result(timeout=timeout)
        return self.parameters()

    def _seen(self) -> Seen:
        return self._own(sface.ask(self._home, ProcessOf(self.id)))

    def _own(self, answer: object) -> Seen:
        """What was read, if it is what this handle is of: another's is misread, and nobody would read an order."""
        seen = cast("Seen", answer)
        if self._registered is not None and seen.name != self._registered.name:
            raise ProcessError(
                f"{self.id!r} is the id of {seen.name!r}, and this handle is of process {self._registered.name!r}; "
                f"what has that id: perdure workflow show {self.id}"
            )
        if seen.schemeless:
            raise ProcessError(
                f"{self.id!r} is no process but a workflow, {seen.name!r}, which takes no orders; send it a message: "
                f"client.handle({self.id!r}).send(…)"
            )
        return seen

    def _code(self, what: str) -> Registered:
        if self._registered is None:
            raise Misuse(f"{what}() of process {self.id!r} needs its class: TheProcess.handle({self.id!r}).{what}()")
        return self._registered

    def __repr__(self) -> str:
        return f"<ProcessHandle {self.id!r}>"


def _running(id: str, seen: Seen, waited: int) -> str:
    """Why an order was not admitted, and what to do."""
    if seen.acting or seen.status is Status.RUNNING:
        go = seen.go
        what = "" if go is None else f": {go.name or go.trigger} from {seen.at.state or 'its start'}"
        if not seen.acting:
            what = f", by an executor that has recorded nothing for {waited / 1e6:g} s (does its action call no step?)"
        return f"process {id!r} is Running{what}; try again, or wait for it: handle.within(seconds)"
    return (
        f"process {id!r} is {seen.status} to go on from {seen.at.state or 'its start'}, and no executor has taken it "
        f"up for {waited / 1e6:g} s; look whether one serves it (perdure executor list), start one (perdure run "
        "MODULE:APP), or wait longer: handle.within(seconds)"
    )


def _held(id: str, seen: Seen) -> str | None:
    """Why nobody takes up an order now, and what to do; None: somebody does."""
    if not seen.held:
        return None
    what = "unpause" if seen.reason is Reason.PAUSED else "resume"
    return (
        f"is held ({seen.reason}{f': {seen.detail}' if seen.detail else ''}); release it: perdure workflow {what} {id}"
    )


def _over(id: str, seen: Seen) -> NotAvailable:
    return NotAvailable(f"process {id!r} is {seen.process_status} in state {seen.at.state!r}, and takes no orders")


def _command(declaration: Declaration, name: str) -> Command[...]:
    declared = declaration.scheme.command(name)
    assert declared is not None, name  # it was found in that scheme
    return Command[...].of(declared)


class ProcessStarter(Generic[P, T]):
    """A process with options for the next starts."""

    def __init__(self, registered: Registered, options: Options) -> None:
        self._registered = registered
        self._workflow = registered.workflow.options(**options)

    @sface.at_the_call
    def start(self, *args: P.args, **kwargs: P.kwargs) -> ProcessHandle[T]:
        """Start one in the background; durable when this returns.

        An id that is taken by the same call answers the process that has it. Raises ``WorkflowConflict``,
        ``Unserializable``.
        """
        return cast("ProcessHandle[T]", _start(self._registered, self._workflow, args, kwargs))


def _start(
    registered: Registered, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ProcessHandle[Any]:
    if args:
        raise TypeError(f"{registered.name} takes its parameters by name: {registered.name}.start(author='ann')")
    handle = workflow.start(**kwargs)
    return ProcessHandle(handle._home, handle.id, registered, handle._ended)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  one handle becomes another


@dataclass_transform(kw_only_default=True)
class Process(Declared):
    """Base of classes that declare a process: annotated fields are its parameters, see ``perdure.process``.

    An instance is the ``self`` of its actions; a process is started by the class and reached by its id.
    """

    __face__ = sface.FACE  # whose apps may declare it

    @classmethod
    def options(cls: Callable[P, T], **options: Unpack[Options]) -> ProcessStarter[P, T]:
        """The process with options for the next start: ``Vacation.options(id="vac-7").start(author="ann")``."""
        return ProcessStarter(_registered(cls), options)

    @classmethod
    @sface.at_the_call
    def start(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> ProcessHandle[T]:
        """Start one in the background; durable when this returns. Raises ``Unserializable``, ``TypeError``."""
        registered = _registered(cls)
        return cast("ProcessHandle[T]", _start(registered, registered.workflow, args, kwargs))

    @classmethod
    def handle(cls, id: str, /) -> ProcessHandle[Self]:
        """The process of that id. Does no I/O."""
        registered = _registered(cls)
        return ProcessHandle(registered.workflow._home, check_id(id), registered)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  its own


def _registered(cls: Any) -> Registered:
    found = cls.__dict__.get("__registered__")
    if isinstance(found, Registered):
        return found
    raise NotOpen(f"{cls.__qualname__} belongs to no app: write @app.process above the class")
