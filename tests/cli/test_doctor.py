"""``perdure doctor`` with faults, and what it advises; ``perdure db``; ``perdure executor``."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.model.ids import TokenMaker
from perdure.model.states import Reason
from perdure.runtime.leases import new_incarnation, provably_gone
from perdure.store.asks import Health
from perdure.store.sqlite import SQLiteStore
from perdure.store.sqlite.locks import locks_on
from tests.cli.conftest import Cli, Running, play, until
from tests.cli.test_workflows import a_day, hold, nothing, store_of
from tests.system import LOCKS_ARE_TOLD


def faults(document: Any) -> list[str]:
    return [fact["what"] for fact in document["facts"] if not fact["good"]]


def test_all_is_well(perdure: Cli, url: str) -> None:
    play(url, nothing)
    text = perdure("doctor").stdout
    assert "✓ database" in text
    assert "(from the only file in ./.perdure)" in text
    assert re.search(r"✓ synchronous +full\n", text)
    assert re.search(r"✓ shop: executors +none alive, 0 workflows wait\n", text)
    assert text.endswith("all is well\n")
    document = perdure.json("doctor")
    assert document["healthy"] is True
    assert faults(document) == []
    assert "database" in perdure("doctor", "-o", "ids").stdout.split("\n")


def test_unfinished_work_and_nobody_there(perdure: Cli, url: str) -> None:
    play(url, a_day)
    text = perdure("doctor", code=1).stdout
    assert "✗ shop: executors  none alive, 1 workflows wait" in text
    assert "→ start one: perdure run MODULE:APP" in text
    assert "✓ shop: queued     1" in text
    assert text.endswith("1 fault\n")


def test_held_work(perdure: Cli, url: str) -> None:
    play(url, nothing)
    perdure("workflow", "start", "checkout", '"x"', "--id", "h-1", "--app", "shop")
    hold(url, "h-1", Reason.NO_CODE, "no such function")
    document = perdure.json("doctor", code=1)
    assert faults(document) == ["shop: held"]
    (fact,) = [fact for fact in document["facts"] if not fact["good"]]
    assert fact["value"] == "h-1 (checkout): no_code: no such function"
    assert fact["advice"] == "perdure workflow show h-1"


def test_a_killed_executor(perdure: Cli, here: Path, run_shop: Callable[..., Running]) -> None:
    running = run_shop()
    assert perdure.json("doctor")["healthy"] is True
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1")
    until((here / "mark").exists)
    assert "alive, lease" in perdure("doctor").stdout
    running.process.kill()
    running.process.wait()
    text = perdure("doctor", code=1).stdout
    assert "killed, lease" in text
    assert "holds 1" in text
    assert "no executor of app 'shop' is alive; start one: perdure run MODULE:APP" in text
    assert "1 workflows wait" in text


def test_settings_that_lose_data(perdure: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    play(url, nothing)

    async def health(self: SQLiteStore) -> Health:
        return Health(facts=[("synchronous", "off", False), ("jit", "on (wanted: off)", False)])

    monkeypatch.setattr(SQLiteStore, "health", health)
    text = perdure("doctor", code=1).stdout
    assert "✗ synchronous" in text
    assert "→ commits do not reach the disk" in text
    assert "→ a pooler drops the settings of a connection" in text
    assert "2 faults" in text


def test_every_fact_of_a_store_has_advice() -> None:
    """Read from the sources: a fact that a store may call bad says what to do."""
    import ast
    import importlib

    from perdure.cli.doctor import _ADVICE
    from perdure.store.postgres.health import DURABLE, PLANS

    found: set[str] = set()
    for dialect in ("sqlite", "postgres"):
        module = importlib.import_module(f"perdure.store.{dialect}.health")
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[0], ast.Constant):
                verdict = node.elts[2]
                always_good = isinstance(verdict, ast.Constant) and verdict.value is not False
                if isinstance(node.elts[0].value, str) and not always_good:
                    found.add(node.elts[0].value)
    assert found | set(DURABLE) == set(_ADVICE)
    assert not set(PLANS) & set(_ADVICE)


@pytest.mark.skipif(not LOCKS_ARE_TOLD, reason="the kernel does not say who has a file open")
def test_a_log_that_was_removed_under_an_executor(perdure: Cli, here: Path) -> None:
    """Said without the file being opened, which would begin another log."""
    perdure("db", "migrate", "-d", "x.db")
    program = "import apsw, sys; c = apsw.Connection(sys.argv[1]); c.execute('select * from meta').fetchall(); input()"
    with subprocess.Popen([sys.executable, "-c", program, "x.db"], stdin=subprocess.PIPE) as other:
        assert other.stdin is not None
        log = here / "x.db-wal"
        until(log.exists)
        until(lambda: (here / "x.db-shm").exists() and any(locks_on(here / "x.db-shm")))
        log.unlink()
        said = perdure("doctor", "-d", "x.db", code=1).stdout
        assert f"x.db-wal was removed while in use by process {other.pid}" in said
        assert "SIGTERM" in said
        assert not log.exists()
        other.stdin.close()


def test_a_database_that_cannot_be_reached(perdure: Cli) -> None:
    document = perdure.json("doctor", "-d", "postgresql://me:secret@127.0.0.1:1/x", code=4)
    assert faults(document) == ["connection"]
    assert "secret" not in str(document)
    text = perdure("doctor", "-d", "missing.db", code=4).stdout
    assert "there is no database file missing.db" in text
    said = perdure("workflow", "list", "-d", "postgresql://me:secret@127.0.0.1:1/x", code=4)
    assert "cannot be reached" in said.stderr
    assert "secret" not in said.stderr


def test_doctor_of_one_app(perdure: Cli, url: str) -> None:
    play(url, a_day)
    play(url, a_day, "other")
    assert {fact["what"].split(":")[0] for fact in perdure.json("doctor", code=1)["facts"] if ":" in fact["what"]} == {
        "shop", "other",
    }  # fmt: skip
    assert "other:" not in perdure("doctor", "--app", "shop", code=1).stdout
    assert "there is no app 'shp'" in perdure("doctor", "--app", "shp", code=3).stdout


# -- db


def test_db(perdure: Cli, here: Path) -> None:
    assert "there is no database file" in perdure("db", "status", "-d", "x.db", code=4).stderr
    (here / "x.db").touch()
    assert "schema version 0" in perdure("db", "status", "-d", "x.db", code=1).stdout
    assert perdure("doctor", "-d", "x.db", code=1).stdout.count("perdure db migrate") == 1
    assert perdure("db", "migrate", "-d", "x.db").stdout.startswith("applied 0001")
    assert "nothing to do" in perdure("db", "migrate", "-d", "x.db").stdout
    assert "apps: none yet" in perdure("db", "status", "-d", "x.db").stdout
    schema = perdure.json("db", "status", "-d", "x.db")["schema"]
    assert schema["current"] is True
    assert schema["version"] == schema["known"]
    assert perdure.json("db", "migrate", "-d", "y.db")["schema"]["applied"][0].startswith("0001")


# -- executors


def test_executors(perdure: Cli, url: str) -> None:
    play(url, nothing)
    perdure("workflow", "start", "parcel", "--app", "shop")

    async def register(store: Any) -> None:
        me = new_incarnation(TokenMaker()(), "me", "v1")
        await store.register(me, 60_000_000)
        await store.register(type(me)(id=b"x" * 16, executor="far", host="elsewhere", pid=7, boot="b"), 0)

    store_of(url, register)
    lines = perdure("executor", "list").stdout.splitlines()
    assert lines[0].split() == (
        ["EXECUTOR", "STATE", "VERSION", "PROCESS", "STARTED", "LEASE", "LAG", "HOLDS", "INCARNATION"]
    )
    assert {line.split()[0]: line.split()[1] for line in lines[1:]} == {"me": "alive", "far": "expired"}
    assert perdure("executor", "list", "-o", "ids").stdout.split() == ["me", "far"]


def test_a_dead_process_that_nobody_reaped_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = new_incarnation(b"m" * 16, "me", "")
    from perdure.runtime.machine import process_started

    who = type(me)(
        id=b"w" * 16, executor="w", boot=me.boot, space=me.space, pid=process.pid,
        pid_started=process_started(process.pid) or 0,
    )  # fmt: skip
    if not who.boot or not who.space:
        pytest.skip("this system does not tell of its processes")
    assert not provably_gone(who)
    process.kill()
    until(lambda: provably_gone(who))  # a zombie: not waited for yet
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    assert provably_gone(who)
