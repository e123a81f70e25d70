"""The body of a process: it interprets the scheme, one burst for each run.

States: what is it for? (mail, a timer, or what the input says) -> move (actions) -> stands there -> automatic exit?
-> next move, or the end of the burst. The end is a signal (``ContinueAsNew``): the next run begins at rest, in one unit
with all that the burst has recorded.

Promises: a state is persisted when its actions have returned, never before; an order is taken with the record that
begins its burst, and answered in the unit that ends it; what a failed action changed of the parameters is undone.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, get_origin

import msgspec

from perdure.client.questions import ResultOf, StartOrder
from perdure.errors import ProcessError, SchemeError, StepFailed, Unserializable
from perdure.model.problems import ProblemKind
from perdure.model.processes import AT, HISTORY, ORDERS, START, Answer, At, Entry, Go, Order
from perdure.model.records import Kind, Outcome, Record
from perdure.model.states import Reason, Status
from perdure.model.writes import Rest
from perdure.runtime.context import body, parameters_of
from perdure.runtime.plain import plain
from perdure.runtime.process_calls import Instance, either
from perdure.runtime.process_children import awaited, carried, inherit, only_open, too_many
from perdure.runtime.process_facts import Facts
from perdure.runtime.waits import ContinueAsNew, Standing
from perdure.schemes import times
from perdure.schemes.declaration import Declaration
from perdure.schemes.form import Handler, Scheme, Transition
from perdure.serde.codec import seal
from perdure.serde.failures import encode_failure
from perdure.serde.names import hint_text
from perdure.serde.values import ArgsShape, Shape

ENTRY = Shape.of(Entry)
ANYTHING = Shape.of(Any)
RESUME = "resume"  # the record of a person's order to a workflow that is held
MOVES_MAX = 10_000  # of one burst: more are automatic exits that go round
CONTAINERS = (list, dict, set)
_order = msgspec.json.Decoder(Order)
_encode = msgspec.json.encode


class Faulted(Exception):
    """An action of a process has failed, and no handler of its scheme took it."""

    def __init__(self, error: Exception, facts: Facts) -> None:
        super().__init__(str(error))
        self.error = error
        self.facts = facts


def body_of(declaration: Declaration, args: ArgsShape, *, is_async: bool) -> Callable[..., Any]:
    """The function that a workflow of this process runs."""
    if is_async:

        async def interpret(**given: Any) -> dict[str, Any]:
            return await Burst(declaration, args, body(), given).run()

        return interpret

    def interpret_blocking(**given: Any) -> dict[str, Any]:
        return plain(Burst(declaration, args, body(), given).run())

    return interpret_blocking


class Input(ArgsShape):
    """The stored input of runs, read by code whose class may have other parameters than the code that wrote it."""

    __slots__ = ("_process",)

    def __init__(self, signature: inspect.Signature, process: str) -> None:
        super().__init__(signature, {})
        self._process = process

    def decode(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Leave out what the class has no more, as models do; ``Unserializable`` for what it needs and is not there.

        A process that has not begun holds what its caller gave: there an unknown one is a mistake.
        """
        args, given = super().decode(data)
        declared = self.signature.parameters
        unknown = [name for name in given if name not in declared]
        if unknown and given.get(AT) is None:
            has = ", ".join(name for name in declared if name != AT) or "none"
            raise Unserializable(f"{unknown[0]}: {self._process} has no such parameter; it has: {has}", unknown[0])
        for name, parameter in declared.items():
            if parameter.default is parameter.empty and name not in given:
                raise Unserializable(
                    f"{name}: {self._process} needs it, and it was not stored; give it a default in the class", name
                )
        for name in unknown:
            del given[name]
        return args, given


def args_of(scheme: Scheme) -> ArgsShape:
    """How the input of a run is stored: persistent parameters by name, and where the process stands."""
    kind = inspect.Parameter.KEYWORD_ONLY
    fields = [
        inspect.Parameter(p.name, kind, annotation=p.hint, default=inspect.Parameter.empty if p.required else p.default)
        for p in scheme.parameters
        if not p.temporary
    ]
    at = inspect.Parameter(AT, kind, annotation=At, default=None)
    return Input(inspect.Signature([*fields, at]), scheme.name)


def storable(declaration: Declaration) -> Declaration:
    """The same; raises ``SchemeError`` for a default that its hint does not take: no burst that ends with it is stored.

    What a ``default_factory`` makes is seen of the builtin containers alone: any other is code, not run at import.
    """
    for parameter in declaration.scheme.parameters:
        makes = parameter.default if parameter.fresh and callable(parameter.default) else None
        if parameter.required or parameter.temporary or parameter.hint is Any or makes not in (None, *CONTAINERS):
            continue
        value, name = parameter.value(), parameter.name
        shape = Shape.of(parameter.hint)
        try:
            shape.decode(shape.encode(value, name), name)
        except Unserializable as error:
            hint = hint_text(parameter.hint).replace(f"{declaration.cls.__module__}.", "")
            container = get_origin(parameter.hint) or parameter.hint
            fresh = f"{name}: {hint} = dataclasses.field(default_factory={container.__name__})"
            advice = [f"{name}: {hint} | None = None"] if value is None else []
            advice += [fresh] if container in CONTAINERS else []
            raise SchemeError(
                f"{declaration.place}: the default of {name} does not fit its own type ({str(error).rstrip('.')}); "
                f"write {' or '.join(advice) or f'a default that is a {hint}, or the type that it is to have'}"
            ) from None
    return declaration


def attributes_of(before: bytes | None, at: At, status: str = "") -> bytes:
    """What a process' row can be searched by: what it was started with, its state and its status."""
    kept: dict[str, Any] = {} if before is None else msgspec.json.decode(before)
    return _encode({**kept, "state": at.state, "status": status or at.status})


def standing(at: At, attributes: bytes | None, rest: Rest | None = None) -> Standing:
    """How the row of a process tells where it stands. ``rest``: what else is to be told."""
    rest = Rest(topic=ORDERS) if rest is None else rest
    if at.status == "Error" and at.go is None and rest.problem is None:
        rest = msgspec.structs.replace(rest, problem=ProblemKind.STEP_FAILED)
    if at.go is not None:
        return Standing(Status.QUEUED, attributes, rest)
    detail = f"in state {at.state}" if at.status == "Idled" else f"in state {at.state}: {at.because}"
    detail = detail[:2000]
    if at.status == "Terminated":
        return Standing(Status.HELD, attributes, msgspec.structs.replace(rest, reason=Reason.NO_EXIT, detail=detail))
    return Standing(Status.WAITING, attributes, msgspec.structs.replace(rest, until=at.due, detail=detail))


class Burst:
    """See the head of this file."""

    def __init__(self, declaration: Declaration, args: ArgsShape, execution: Any, given: dict[str, Any]) -> None:
        self.declaration = declaration
        self.scheme = declaration.scheme
        self.execution = execution
        self.at: At = given.pop(AT, None) or START
        self.values = given  # as they are persisted
        self._args = args
        self._instance = Instance(declaration, given)
        self._token = ""
        self._facts = Facts(declaration, args, given, self.at, None, False)  # as a policy would find them
        self._applied: dict[str, Any] = {}  # what decisions have set during this run
        self._entry: Entry | None = None  # of the latest move, not appended yet
        inherit(execution, self.at)

    @property
    def now(self) -> int:
        """The time of the latest outcome."""
        now: int = self.execution.run.now
        return now

    async def run(self) -> dict[str, Any]:
        """The whole burst; its value where it ends in a final state, else it continues as new."""
        question = too_many(self.at)
        if question is not None:
            self.at = only_open(self.execution, self.at, await either(self.execution.ask(question)))
        if self.at.go is not None:
            return await self._burst(self.at.go)
        record: Record = await either(self.execution.recv(ORDERS, 0))
        if record.outcome is Outcome.VALUE:
            return await self._obey(_order.decode(record.data or b""))
        due = [(when, name) for name, when in self.at.timers.items() if when <= self.now]
        if due:
            return await self._fire(*min(due))
        history = self.execution.run.history
        if any(record.kind is Kind.DECISION and record.name == RESUME for record in history):
            return await self._burst(Go(how="exits", trigger="resume"))  # somebody told the workflow to go on
        return self._end(self.at)  # woken by what is not for it: the end of a child, another's message

    # -- what begins a burst

    async def _fire(self, due: int, name: str) -> dict[str, Any]:
        edges = self.scheme.fired(self.at.state, name)
        timer = edges[0].timer if edges else None
        again = None if timer is None else times.again(timer, due, self.now)
        left = {other: when for other, when in self.at.timers.items() if other != name}
        self.at = msgspec.structs.replace(self.at, timers=left if again is None else {**left, name: again})
        taken = None
        try:
            for edge in edges:
                if await self._instance.holds(edge.cond, self._instance.offered(self.at.state, None, edge)):
                    taken = edge
                    break
        except Exception as error:
            because = f"the condition of its timer {name} failed: {type(error).__name__}: {error}"
            self.at = msgspec.structs.replace(self.at, status="Error", because=because)
        if taken is not None:
            return await self._burst(self._along(taken, "timer", late=self.now - due))
        return self._end(self.at)  # nothing comes of this firing; orders on their way have seen what is still so

    def _along(self, edge: Transition, trigger: Any, **more: Any) -> Go:
        place = self.scheme.exits(edge.source).index(edge)
        return Go(how="edge", target=edge.target, trigger=trigger, name=edge.name, edge=place, **more)

    async def _obey(self, order: Order) -> dict[str, Any]:
        if order.seen is not None and order.seen != self.at.bursts:
            self._refuse(order, "busy", "it has moved while the order was on its way; look again, and order anew")
        if order.kind == "command":
            return await self._burst(await self._chosen(order))
        go = self._to_set(order)
        if order.set:
            self._take_over(order)
        return await self._burst(go)

    def _to_set(self, order: Order) -> Go:
        """What comes of an order to set the state, or to resume."""
        if order.kind == "resume":
            return Go(
                how="exits", trigger="resume", token=order.token, actor=order.actor, because=order.because
            )  # fmt: skip
        known = self.scheme.has(order.name) or any(group.name == order.name for group in self.scheme.groups)
        if not known:
            names = ", ".join(state.name for state in self.scheme.states)
            self._refuse(order, "refused", f"it has no state {order.name!r}; it has: {names}")
        state = self.scheme.state(order.name)
        if not state.settable:
            names = ", ".join(state.name for state in self.scheme.states if state.settable) or "none"
            self._refuse(order, "refused", f"its state {state.name!r} is not settable; those are: {names}")
        how: Any = "enter" if order.run else "stand"
        return Go(
            how=how, target=state.name, trigger="set", actor=order.actor, token=order.token, because=order.because
        )  # fmt: skip

    def _take_over(self, order: Order) -> None:
        known = {parameter.name: parameter for parameter in self.scheme.parameters if not parameter.temporary}
        for name, data in order.set.items():
            if name not in known:
                has = ", ".join(known) or "none"
                self._refuse(order, "refused", f"it has no parameter {name!r}; it has: {has}")
            try:
                self.values[name] = Shape.of(known[name].hint).decode(bytes(data), name)
            except Unserializable as error:
                self._refuse(order, "refused", str(error))
        self._instance = Instance(self.declaration, self.values)

    async def _chosen(self, order: Order) -> Go:
        """The first edge of the command that the actor may take and whose condition holds."""
        offers = self.scheme.offers(self.at.state)
        command = self.scheme.command(order.name)
        if order.name not in offers or command is None:
            names = ", ".join(offers) or "none"
            self._refuse(
                order, "not_available", f"{order.name!r} is no command in state {self.at.state!r}; those are: {names}"
            )
        try:
            given = self._instance.given(command, order)
        except (TypeError, Unserializable) as error:
            self._refuse(order, "refused", str(error))
        allowed = False
        try:
            for edge in offers[order.name]:
                offered = self._instance.offered(self.at.state, order.actor, edge, **given)
                if not await self._instance.allows(edge.by, order.actor, offered):
                    continue
                allowed = True
                if await self._instance.holds(edge.cond, offered):
                    return self._along(
                        edge, "command", actor=order.actor, token=order.token, parameters=order.parameters,
                        because=order.because,
                    )  # fmt: skip
        except Exception as error:  # of a condition, or of an actor's method
            self._refuse(order, "failed", f"{type(error).__name__}: {error}", failure=encode_failure(error).decode())
        if not allowed:
            self._refuse(order, "not_allowed", f"{order.actor!r} may not {order.name} in state {self.at.state!r}")
        because = f"{order.name!r}: its condition does not hold in state {self.at.state!r}"
        return self._refuse(order, "not_available", because)

    def _refuse(self, order: Order, answer: Answer, because: str, failure: str = "") -> NoReturn:
        """Nothing has changed, and whoever ordered is told why."""
        self._append(
            Entry(
                kind="refused", trigger="command", name=order.name, source=self.at.state, target=self.at.state,
                actor=order.actor, at=self.now, status=self.at.status, because=because, token=order.token,
                answer=answer, failure=failure,
            )
        )  # fmt: skip
        self._end(self.at)

    # -- the burst

    async def _burst(self, go: Go) -> dict[str, Any]:
        self._token = go.token
        try:
            return await self._go_on(go)
        except Exception as error:
            at = carried(self.execution, self._facts.at)  # what the failed actions have begun is begun
            raise Faulted(error, self._facts._replace(at=at)) from error

    async def _go_on(self, go: Go) -> dict[str, Any]:
        first = go
        for made in range(MOVES_MAX):
            if go.how != "exits":
                instead = await self._move(go)
                if instead is not None:
                    go = instead
                    continue
                if self.scheme.state(self.at.state).final:
                    return await self._finalize()
                if self.scheme.autos(self.at.state):
                    self._persist()
            else:
                self._moves(go)
            following = await self._automatic()
            if following is None:
                self._settle_down(first, stayed=not made and go.how == "exits")
            go = msgspec.structs.replace(following, token=first.token)
        raise ProcessError(f"{MOVES_MAX} moves in one burst: automatic exits go round, now to {go.target!r}")

    async def _automatic(self) -> Go | None:
        for edge in self.scheme.autos(self.at.state):
            if await self._instance.holds(edge.cond, self._instance.offered(self.at.state, None, edge)):
                return self._along(edge, "auto")
        return None

    async def _move(self, go: Go) -> Go | None:
        """Make a move; another one to make instead, if a handler says so."""
        self._moves(go)
        began = self.now
        edge = self._edge(go) if go.how == "edge" else None
        target = self.scheme.initial if go.how == "enter" and not go.target else go.target
        go = msgspec.structs.replace(go, target=target)
        instead = await self._act(go, edge)
        if instead is not None:
            return instead
        self._values_now()
        await self._arrive(go, edge, began)
        return None

    def _edge(self, go: Go) -> Transition:
        exits = self.scheme.exits(self.at.state)
        if go.edge < len(exits) and exits[go.edge].target == go.target:
            return exits[go.edge]
        raise ProcessError(f"the scheme has no exit from {self.at.state!r} to {go.target!r} any more")

    async def _act(self, go: Go, edge: Transition | None) -> Go | None:
        handlers = self.scheme.state(go.target).on_error
        if edge is None:
            todo = [] if go.how == "stand" else [(name, handlers) for name in self.scheme.entering(go.target)]
            given: Mapping[str, Any] = {}
        else:
            moves = self.scheme.moves(edge)
            leaving = self.scheme.state(edge.source).on_error
            todo = [(name, leaving) for name in moves.leave]
            todo += [(name, handlers) for name in (*moves.on, *moves.enter)]
            command = self.scheme.command(edge.name) if edge.trigger == "command" else None
            order = Order(kind="command", token="", parameters=go.parameters)
            given = {} if command is None else self._instance.given(command, order)
        offered = self._instance.offered(self.at.state, go.actor, edge, **given)
        for name, own in todo:
            handler = await self._try(name, {**offered, "target": go.target}, own)
            if handler is not None:
                self._instance = Instance(self.declaration, self.values)
                because = f"{name} failed, and {handler.error} goes to {handler.to}"
                return Go(how="enter", target=handler.to, trigger="error", token=self._token, because=because)
        return None

    async def _try(self, name: str, offered: Mapping[str, Any], handlers: tuple[Handler, ...]) -> Handler | None:
        """Run one action; the handler that sends the process elsewhere, if one does. Raises what none takes."""
        used = [0] * len(handlers)
        while True:
            held = self._instance.copy() if handlers else {}
            try:
                await self._instance.call(name, offered)
                self._all_awaited()
            except Exception as error:
                handler = _taking(error, handlers, used)
                if handler is None:
                    raise
                if handler.retry:
                    self._instance.put_back(held)
                    continue
                return None if handler.ignore else handler
            return None

    def _all_awaited(self) -> None:
        """An action that called a step and did not await it has failed."""
        unawaited = self.execution.unawaited
        error = None if unawaited is None else unawaited.error()
        if error is not None:
            self.execution.unawaited = None
            raise error

    async def _arrive(self, go: Go, edge: Transition | None, began: int) -> None:
        at, now = self.at, self.now
        self._entry = Entry(
            trigger=go.trigger, name=go.name, source=at.state, target=go.target, actor=go.actor,
            reverse=edge is not None and edge.reverse, at=now, took=now - began, late=go.late, because=go.because,
        )  # fmt: skip
        if edge is not None and edge.internal:
            self.at = msgspec.structs.replace(at, status="Idled", because="")
            return
        running = frozenset(at.timers) - ({go.name} if go.trigger == "timer" else set[str]())
        clocks = self.scheme.clocks(go.target, running)
        timers = {name: at.timers[name] for name in clocks.keep}
        offered = self._instance.offered(go.target, go.actor)
        for name, timer in clocks.arm:
            due = await self._instance.due(timer, now, offered)
            if due is not None:
                timers[name] = due
        self.at = msgspec.structs.replace(
            at, state=go.target, previous=at.state, status="Idled", because="", entered=now, timers=timers
        )

    # -- what is written

    def _values_now(self) -> None:
        self._decided()
        values = self._instance.values
        self._args.encode((), values)  # what cannot be stored is the action's failure
        self.values = values

    def _decided(self) -> None:
        """What decisions have set while this burst was on its way counts from here on."""
        decided = parameters_of(self.execution.run.parameters)
        for parameter in self.scheme.parameters:
            name = parameter.name
            if name in decided and self._applied.get(name, self) != decided[name]:
                self._applied[name] = decided[name]
                shape = Shape.of(parameter.hint)
                setattr(self._instance.object, name, shape.decode(shape.encode(decided[name], name), name))

    def _input(self, at: At) -> bytes:
        at = carried(self.execution, at)
        return seal(self._args.encode((), {**self.values, AT: at}), "parameters", self.execution.host.registry.codec)

    def _moves(self, go: Go) -> None:
        self._note(Kind.MOVE, _encode(go))
        self._facts = self._facts._replace(go=go, arrived=False)

    def _note(self, kind: Kind, data: bytes) -> None:
        execution = self.execution
        data = seal(data, "a move", execution.host.registry.codec)
        with getattr(execution, "lock", contextlib.nullcontext()):
            execution.run.note(execution.next_path(), kind, self.at.state, b"", data, execution.line.clock.now())
        execution.dirty()

    def _append(self, entry: Entry) -> None:
        self.at = msgspec.structs.replace(self.at, entries=self.at.entries + 1)
        data = seal(ENTRY.encode(entry, "an entry"), "an entry", self.execution.host.registry.codec)
        self.execution.note_stream(self.execution.next_path(), HISTORY, data)

    def _persist(self) -> None:
        """It stands here, whatever becomes of the next move."""
        assert self._entry is not None, "a move was made"
        self._append(self._entry)
        self._entry = None
        at = msgspec.structs.replace(self.at, go=None)
        self._note(Kind.STATE, self._input(at))
        self._facts = self._facts._replace(values=dict(self.values), at=at, arrived=True)

    def _settle_down(self, first: Go, *, stayed: bool) -> NoReturn:
        """Nothing automatic is left to do: the burst ends here."""
        at = msgspec.structs.replace(self.at, status="Idled", because="")
        entry = self._entry
        if entry is None:
            entry = Entry(
                kind="rest", trigger=first.trigger, source=at.state, target=at.state, actor=first.actor, at=self.now,
                because=first.because, answer="not_resumed" if stayed else "",
            )  # fmt: skip
        self._append(msgspec.structs.replace(entry, status=at.status, token=self._token))
        self._rest(at)

    async def _finalize(self) -> dict[str, Any]:
        assert self._entry is not None, "a move was made"
        at = msgspec.structs.replace(self.at, go=None, timers={}, bursts=self.at.bursts + 1)
        self._note(Kind.STATE, self._input(at))
        for id in awaited(self.execution):
            with contextlib.suppress(Exception):  # however it ends, or if it is gone
                await either(self.execution.ask(ResultOf(id, ANYTHING)))
        self._append(msgspec.structs.replace(self._entry, status="Finalized", token=self._token))
        self.execution.last_attributes = attributes_of(self.execution.row.attributes, at, "Finalized")
        return self.values

    def _rest(self, at: At) -> NoReturn:
        self._end(msgspec.structs.replace(at, go=None, bursts=at.bursts + 1))

    def _end(self, at: At) -> NoReturn:
        at = msgspec.structs.replace(at, entries=self.at.entries)
        row = self.execution.row
        rest = Rest(topic=ORDERS, problem=row.problem if at.status == "Error" else None)
        order = StartOrder(name=row.name, input=self._input(at), fingerprint=row.fingerprint)
        raise ContinueAsNew(order, standing(at, attributes_of(row.attributes, at), rest))


def _taking(error: Exception, handlers: tuple[Handler, ...], used: list[int]) -> Handler | None:
    """The first handler that is for this error and not used up."""
    names = {cls.__name__ for cls in type(error).__mro__} | {"*"}
    if isinstance(error, StepFailed):
        names.add(error.type_name.rpartition(".")[2].rpartition(":")[2])
    for place, handler in enumerate(handlers):
        if handler.error not in names:
            continue
        if not handler.retry:
            return handler
        if used[place] < handler.retry:
            used[place] += 1
            return handler
    return None
