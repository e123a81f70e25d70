"""Blocking bodies in greenlets: what they are spared, what they see, and that each kind goes on with the other's runs.

That they do what blocking bodies do in threads is shown by all tests of the sync face, which run with both.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Topic
from perdure.errors import ConfigError
from perdure.runtime import greenlet_body, leases, stalls
from perdure.sync import recv
from tests.runtime.conftest import Bodies
from tests.runtime.support import Ledger, executor, until_sync

ROOT = Path(__file__).resolve().parents[2]
GO: Topic[bool] = Topic("go")
WORD = contextvars.ContextVar("WORD", default="none")


@pytest.fixture
def bodies() -> Bodies:
    return "greenlets"


def test_a_thousand_wait_in_memory_without_a_thread(sync_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_GRACE", "3600")

    @sync_app.workflow
    def waits(n: int) -> int:
        recv(GO)
        return n

    with sync_app:
        handles = waits.start_many(range(1000))
        until_sync(lambda: sum(len(e.waiting) for e in executor(sync_app).executions.values()) == 1000, 60)
        assert threading.active_count() < 40
        for handle in handles[::100]:
            handle.send(True, GO)
        assert [handle.result(timeout=30) for handle in handles[::100]] == list(range(0, 1000, 100))


def test_a_body_sees_no_loop_and_a_context_of_its_own(sync_app: Any) -> None:
    seen: list[str] = []

    @sync_app.step
    def step() -> None:
        seen.append(f"step: {WORD.get()}")

    @sync_app.workflow
    def body(word: str) -> str:
        WORD.set(word)
        step()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return WORD.get()

    with sync_app:
        handles = body.start_many(["one", "two", "three"])
        assert [handle.result() for handle in handles] == ["one", "two", "three"]
    assert seen == ["step: none"] * 3


def test_an_exception_shows_where_in_the_body(sync_app: Any) -> None:
    def deeper(n: int) -> None:
        if n:
            deeper(n - 1)
        else:
            raise ValueError("at the bottom")

    @sync_app.workflow
    def body() -> None:
        deeper(300)

    with sync_app:
        handle = body.start()
        with pytest.raises(ValueError, match="at the bottom") as raised:
            handle.result()
        assert "in deeper" in str(vars(raised.value))  # as it was recorded


def test_a_body_that_blocks_is_told_and_named(sync_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.05)
    seen = threading.Event()

    @sync_app.workflow
    def body() -> str:
        recv(GO)
        assert seen.wait(30)  # this line is told
        return "done"

    with sync_app, perdure.sync.Client(sync_app._home.engine().settings.database, app="shop") as outside:
        handle = body.options(id="w").start()
        outside.handle("w").send(True, GO)
        until_sync(lambda: [str(one.kind) for one in outside.handle("w").problems()] == ["turn_timeout"])
        assert "this line is told" in outside.handle("w").problems()[0].text
        seen.set()
        assert handle.result() == "done"


def test_a_body_that_will_not_end_is_left_where_it_stands(
    sync_app: Any, ledger: Ledger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It catches everything and asks again, for ever: the loop must not be kept by it."""
    left: list[Any] = []
    monkeypatch.setattr(greenlet_body, "_left_standing", left)

    @sync_app.step
    def step() -> None:
        ledger.note("step")

    @sync_app.workflow
    def stubborn() -> None:
        while True:
            try:
                recv(GO)
                step()
            except BaseException:
                ledger.note("caught")

    with sync_app, caplog.at_level(logging.WARNING, "perdure"):
        handle = stubborn.options(id="w").start()
        until_sync(lambda: len(executor(sync_app).executions["w"].waiting) == 1)
    assert "the body of workflow w was put away and does not end" in caplog.text
    assert ledger.counts == {"caught": 1 + greenlet_body.REFUSALS_MAX}
    assert len(left) == 1
    assert handle.id == "w"


def test_the_package_is_asked_for_by_name(sync_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "perdure.runtime.greenlet_body", raising=False)
    monkeypatch.setitem(sys.modules, "greenlet", None)
    with pytest.raises(ConfigError, match=r"pip install 'perdure\[greenlets\]'"):
        sync_app.open()


def test_a_word_that_is_none_is_refused(database: str) -> None:
    app = perdure.sync.App("shop", database=database, bodies="fibers")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"bodies='fibers' .* is none of threads, greenlets"):
        app.open()


# -- a real kill, and the other kind goes on

VICTIM = """
import os, signal, sys
from perdure.sync import App, Retry, current, recv, sleep

database, bodies, ledger, deadly = sys.argv[1:]
app = App("shop", database=database, bodies=bodies, version="1")

def note(what):
    with open(ledger, "a") as file:
        file.write(what + "\\n")

@app.step
def quick(n: int) -> int:
    note(f"quick {n}")
    return n

@app.step(retry=Retry(3, on=ConnectionError, delay=0))
def flaky(n: int) -> int:
    note(f"flaky {n} attempt {current().attempt}")
    if current().attempt == 1:
        raise ConnectionError
    if deadly == "yes":
        os.kill(os.getpid(), signal.SIGKILL)
    return n

@app.workflow
def child(n: int) -> int:
    return quick(n) * 10

@app.workflow
def body() -> list[int]:
    found = [quick(1), child(2)]
    sleep(0.01)
    found.append(flaky(3))
    found.append(child(4))
    return found

with app:
    print(body.options(id="w").start().result(), flush=True)
"""


@pytest.mark.crash
@pytest.mark.parametrize(("first", "then"), [("threads", "greenlets"), ("greenlets", "threads"), ("greenlets",) * 2])
def test_killed_in_one_kind_it_goes_on_in_the_other(database: str, tmp_path: Path, first: str, then: str) -> None:
    ledger = tmp_path / "ledger"

    def live(bodies: str, deadly: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", VICTIM, database, bodies, str(ledger), deadly]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert live(first, "yes").returncode == -signal.SIGKILL
    ended = live(then, "no")
    assert (ended.stdout, ended.returncode) == ("[1, 20, 3, 40]\n", 0), ended.stderr
    assert ledger.read_text().splitlines() == [
        "quick 1", "quick 2", "flaky 3 attempt 1", "flaky 3 attempt 2",
        "flaky 3 attempt 2", "quick 4",
    ]  # fmt: skip
