"""Canonical workflows of the sync face: bodies in threads."""

from __future__ import annotations

from perdure.errors import StepOutcomeUnknown
from perdure.sync import (
    App,
    Event,
    Retry,
    Stream,
    Topic,
    close_stream,
    current,
    now,
    recv,
    set_event,
    sleep,
    write_stream,
)
from tests.crash.ledger import ledger

app = App("canon-sync")
letters = Topic[str]("letters")
stage = Event[str]("stage")
lines = Stream[str]("lines")


@app.step
def act(what: str) -> str:
    ledger.effect(what)
    return what


@app.step
async def act_on_loop(what: str) -> str:
    ledger.effect(what)
    return what


@app.step(retry=Retry(4, on=ConnectionError, delay=5))
def third_time(what: str) -> str:
    ledger.effect(what)
    if current().attempt < 3:
        raise ConnectionError(f"attempt {current().attempt}")
    return what


@app.step
def refuse(what: str) -> str:
    ledger.effect(what)
    raise ValueError(what)


@app.step(at_most_once=True)
def shoot(what: str) -> str:
    ledger.effect(what, once=True)
    return what


@app.workflow
def cautious() -> str:
    try:
        shoot("ready")
    except StepOutcomeUnknown:
        act("look")
    return act("done")


@app.workflow
def sequence(n: int) -> list[str]:
    return [act(f"act {i}") if i % 2 else act_on_loop(f"act {i}") for i in range(n)]


@app.workflow
def naps() -> float:
    began = now()
    sleep(100)
    act("awake")
    sleep(50)
    return (now() - began).total_seconds()


@app.workflow
def retried() -> str:
    return third_time("r") + act("after")


@app.workflow
def child(what: str) -> str:
    act(f"{what}/1")
    sleep(10)
    return act(f"{what}/2")


@app.workflow
def children() -> list[str]:
    first = child("one")
    handle = child.options(id="two").start("two")
    third = child.start("three")
    act("between")
    return [first, handle.result(), third.result()]


@app.workflow
def guardian() -> str:
    """Its end waits for one child, and leaves the other alone."""
    child.options(id="waited", on_parent_close="wait").start("waited")
    naps.options(id="abandoned", on_parent_close="abandon").start()
    return act("leaving")


@app.workflow
def tenant(what: str) -> str:
    try:
        act(f"{what} moved in")
        if what == "first":
            recv(letters)
        return what
    finally:
        act(f"{what} moved out")


@app.workflow
def mailbox() -> list[str | None]:
    got: list[str | None] = [recv(letters), recv(letters, timeout=1000)]
    set_event(stage, "read")
    act(f"read {got}")
    got.append(recv(letters, timeout=50))
    return got


@app.workflow
def talkers() -> str | None:
    box = mailbox.options(id="box").start()
    for i in range(2):
        act(f"write {i}")
        box.send(f"letter {i}", letters)
    return f"{box.result()} {box.get_event(stage)}"


@app.workflow
def cancelled() -> str:
    try:
        act("begun")
        recv(letters)
        return "not cancelled"
    finally:
        act("cleaned up")


@app.workflow
def generations(left: int) -> str:
    act(f"generation {left}")
    if left:
        generations.continue_as_new(left - 1)
    return "the last"


@app.workflow
def caught() -> str:
    try:
        refuse("first")
    except ValueError as error:
        return act(f"caught {error}")
    return "not raised"


@app.step(retry=Retry(3, on=ConnectionError, delay=5))
def recite(what: str) -> str:
    ledger.effect(what)
    for n in range(4):
        write_stream(lines, f"{what} {n}")
        if n == 1 and current().attempt == 1:
            raise ConnectionError("once")
    return what


@app.workflow
def reciter() -> str:
    write_stream(lines, "begin")
    recite("a")
    write_stream(lines, "end")
    close_stream(lines)
    return "recited"


@app.workflow
def audience() -> list[str]:
    """Reads what its child writes, while it does."""
    child = reciter.start()
    heard = list(child.read_stream(lines))
    return [act("heard"), *heard]
