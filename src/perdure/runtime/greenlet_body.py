"""A blocking body in a greenlet: it runs on the host loop, in its turns, and leaves the loop wherever it must wait.

A thread that waits for its step's record must be woken for each, which costs as much as all the rest of a step; a
greenlet is left and entered again for a third of a microsecond, and waits without a thread. So thousands of bodies can
wait at once, and a step costs what it costs an async body. The price is the async face's: a body that computes or
blocks keeps the loop from its other work. Steps have threads, as those that async bodies call.

States: begun -> in the body | parked (the host sees to what it waits for) | due (the answer is there) -> ended.
``_enter`` is the only way into the body; whatever the body asks of the host, it asks by leaving (``_ask_host``), so the
host's work is never done on the body's stack. What it only notes (an event, a value of a stream) stays with the run.
"""

from __future__ import annotations

import logging
from asyncio import events
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

from perdure.core.run import Op
from perdure.errors import Evicted
from perdure.runtime import stalls
from perdure.runtime.context import THREAD
from perdure.runtime.sync_body import SyncExecution

log = logging.getLogger("perdure")

REFUSALS_MAX = 100  # calls of a body that was put away and does not end: then it is left where it stands
_left_standing: list[greenlet] = []  # … for good: let go of, it would be told to end, and hear that no better

Asked = tuple[Callable[..., None], tuple[Any, ...]]  # a call that the host is to make


class GreenletExecution(SyncExecution):
    """See the head of this file."""

    _greenlet: greenlet | None = None
    _inside = False  # the host is in the body, or sees to what that asked of it
    _due = False  # what the body waits for is there
    _refusals = 0

    def begin_body(self) -> None:
        args, kwargs = self.definition.args.decode(self.input)
        self.arm_deadline()
        self._greenlet = body = greenlet(self.run_body)
        body.gr_context = self.host.context.copy()
        self._resume(args, kwargs)

    def run_body(self, args: Any, kwargs: Any) -> Asked:
        """In the greenlet: the body, from its begin to its end."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = self.definition.fn(*args, **kwargs)
        except BaseException as raised:
            error = raised
        return self._body_ended, (value, error)

    def _body_ended(self, value: Any, error: BaseException | None) -> None:
        self._greenlet = None
        if self.gone:
            self.left(error)
        super()._body_ended(value, error)

    # -- in and out

    def _resume(self, *given: Any) -> None:
        """On the host: let the body go on until it waits for what is not there, or ends."""
        self._inside = self._due = True
        try:
            while self._due:
                self._due = False
                callback, args = self._enter(*given)
                callback(*args)
                given = ()
        finally:
            self._inside = False

    def _enter(self, *given: Any) -> Asked:
        """Into the body, and out of it again. It sees no loop: it does not await, and must not think it is watched."""
        assert self._greenlet is not None, "begun, and not ended"
        before, loop = THREAD.execution, events._get_running_loop()  # noqa: SLF001  the public form raises where there is none
        THREAD.execution = self
        events._set_running_loop(None)  # noqa: SLF001  the loop's own way
        try:
            asked: Asked = self._greenlet.switch(*given)
        finally:
            THREAD.execution = before
            events._set_running_loop(loop)  # noqa: SLF001
        return asked

    def _ask_host(self, callback: Callable[..., None], *args: Any) -> None:
        """From the body: leave it, and be back once the host has seen to that."""
        host = getcurrent().parent
        assert host is not None, "the body is in a greenlet of its own"
        host.switch((callback, args))

    def _stand(self, op: Op, begin: Callable[[Op], None]) -> None:
        self._ask_host(self._begin_parked, op, begin)

    def _have_done(self, work: Callable[[], None]) -> None:
        def then_let_go() -> None:
            work()
            self._due = True

        self._ask_host(then_let_go)

    def _let_go(self) -> None:
        """The body goes on in the turn of the loop that settled what it waited for: in ``pump``, which comes next.

        So what it asks for next goes in one commit with that outcome.
        """
        self._due = True

    def pump(self) -> None:
        super().pump()
        if self._due and not self._inside:
            self._resume()

    # -- put away

    def put_away(self) -> None:
        super().put_away()
        if self._due and not self._inside:
            self._answer = Evicted()
            self._resume()

    def check_alive(self) -> None:
        """A body that goes on although each of its calls is refused would keep the loop for ever: it is left."""
        if self.gone:
            self._refusals += 1
            if self._refusals > REFUSALS_MAX:
                self._leave_standing()
        super().check_alive()

    def _leave_standing(self) -> None:
        if self._refusals == REFUSALS_MAX + 1:
            log.warning(
                "the body of workflow %s was put away and does not end: it catches BaseException and goes on. It is "
                "left where it stands; nothing of that is kept. Let Evicted pass", self.id,
            )  # fmt: skip
            _left_standing.append(getcurrent())
        self._ask_host(_nothing)


def _nothing() -> None:
    """The host need do nothing, and the body is not let go on."""


stalls.known(GreenletExecution.run_body.__code__, lambda frame: frame.f_locals["self"])
