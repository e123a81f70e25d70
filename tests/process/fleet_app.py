"""The app that a fleet of real processes runs: ``perdure run tests.process.fleet_app:app``.

Each effect is a line of the file ``PERDURE_TEST_LEDGER``: ``begin|asked ID STATE PID INCARNATION NANOSECONDS``. An
action of a state waits while the file ``LEDGER.shut.STATE`` is there. ``PERDURE_TEST_POLICY``: ``count`` leaves every
decision to the default and says that it was asked; ``die`` kills its process when asked; ``back`` runs from Draft.
``PERDURE_TEST_SKEW``: so many seconds the clock of this process is ahead.
"""

# waits: actions that another process keeps waiting by a file.

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from perdure import App, current
from perdure.process import Process, State
from perdure.recovery import Decision, Default, Incident, RunFrom
from perdure.runtime.machine import elapsed

SKEW = float(os.environ.get("PERDURE_TEST_SKEW", "0"))
if SKEW:
    _now, _now_ns = time.time, time.time_ns
    time.time = lambda: _now() + SKEW
    time.time_ns = lambda: _now_ns() + int(SKEW * 1e9)

app = App("fleet")
LEDGER = os.environ["PERDURE_TEST_LEDGER"]


def note(what: str, id: str, state: str) -> None:
    executor = app._home.engine().executor
    me = executor.me.id.hex() if executor is not None else "-"
    line = f"{what} {id} {state} {os.getpid()} {me} {int(elapsed() * 1e9)}\n"
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)


@app.step
async def enter(id: str, state: str) -> str:
    note("begin", id, state)
    while Path(f"{LEDGER}.shut.{state}").exists():  # noqa: ASYNC110, ASYNC240  another process opens it
        await asyncio.sleep(0.02)
    return state


@app.process
class S(Process):
    """The scheme of the acceptance cases."""

    note: str = ""
    patience: float | None = 2  # seconds in Review; None: for ever
    Draft = State(initial=True, settable=True)
    Check = State()
    Review = State(settable=True)
    Escalated = State()
    Booking = State()
    Done = State(final=True)
    submit = Draft.to(Check)
    checked = Check.to(Review, auto=True)
    approve = Review.to(Booking) | Escalated.to(Booking)
    reject = Review.to(Draft)
    stale = Review.to(Escalated, at="patience")
    booked = Booking.to(Done, auto=True)

    async def on_enter_state(self, target: str) -> None:
        self.note = f"{self.note}{target[0]}"
        await enter(current().id, target)


@app.process
class Timed(Process):
    """Ends by its timer."""

    seconds: float = 1
    wait = State(initial=True)
    end = State(final=True)
    fire = wait.to(end, at="seconds")

    async def on_enter_end(self) -> None:
        await enter(current().id, "end")


order = os.environ.get("PERDURE_TEST_POLICY", "")
if order:

    @app.recovery_policy(S)
    def asked(incident: Incident) -> Decision:
        """As the environment says."""
        note("asked", incident.id, incident.status)
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return RunFrom("Draft", because="lost") if order == "back" else Default()
