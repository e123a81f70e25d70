"""``perdure process diagram``: of code, of a file, of one process as it stands."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure.schemes.drawn import TIMES
from tests.cli.conftest import Cli

MODULE = """
from perdure import App
from perdure.process import Process, State

desk = App("desk")


@desk.process
class Letter(Process):
    draft = State(initial=True)
    sent = State()
    answered = State(final=True)
    send = draft.to(sent)
    answer = sent.to(answered)
    back = sent.to(draft)
"""
OTHER = """

@desk.process
class Note(Process):
    pinned = State(initial=True)
    gone = State(final=True)
    drop = pinned.to(gone)
"""
numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, here: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{here}/.perdure/desk.db"


def module(here: Path, monkeypatch: pytest.MonkeyPatch, text: str = MODULE) -> str:
    name = f"desk_module_{next(numbers)}"
    (here / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(here)
    importlib.invalidate_caches()
    return name


def test_of_code(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = perdure("process", "diagram", "--code", f"{module(here, monkeypatch)}:desk").stdout
    assert said.startswith("stateDiagram-v2\n    [*] --> draft\n    draft --> sent : send\n")
    assert "class" not in said


def test_as_one_stands(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    name = module(here, monkeypatch)
    monkeypatch.setenv("PERDURE_DATABASE_URL", database)
    code: Any = importlib.import_module(name)

    async def play() -> None:
        async with code.desk:
            letter = await code.Letter.options(id="l-1").start()
            for command in ("send", "back", "send"):
                await letter.within(20).execute(command)

    asyncio.run(play())
    said = perdure("process", "diagram", "l-1", "--code", f"{name}:desk").stdout
    assert f"draft --> sent : send {TIMES}2\n" in said
    assert f"sent --> answered : answer {TIMES}0\n" in said
    assert said.endswith("class sent current\n")
    picture = perdure("process", "diagram", "l-1", "--code", f"{name}:desk", "--format", "svg").stdout
    assert picture.startswith("<svg")
    assert 'class="lit"' in picture
    told = perdure.json("process", "diagram", "l-1", "--code", f"{name}:desk")["diagram"]
    assert (told["process"], told["id"], told["state"], told["format"]) == ("Letter", "l-1", "sent", "mermaid")
    assert "l-2" in perdure("process", "diagram", "l-2", "--code", f"{name}:desk", code=3).stderr
    # Without the code: as the executor has told it.
    assert perdure("process", "diagram", "l-1", "--format", "svg").stdout == picture
    assert "draft --> sent : send" in perdure("process", "diagram").stdout
    assert "l-2" in perdure("process", "diagram", "l-2", code=3).stderr
    assert "no executor has told the scheme of 'X'" in perdure("process", "diagram", "--process", "X", code=3).stderr


def test_of_a_file(perdure: Cli, here: Path) -> None:
    (here / "door.yaml").write_text(
        "states: {a: {initial: true, enter: ring, transitions: [{event: go, target: b, by: owner}]}, b: {final: true}}"
    )
    assert "a --> b : go by owner\n" in perdure("process", "diagram", "--code", "door.yaml").stdout
    assert perdure.json("process", "diagram", "--code", "door.yaml")["diagram"]["process"] == "door"
    assert "need the code" in perdure("process", "diagram", "x", "--code", "door.yaml", code=2).stderr
    (here / "bad.yaml").write_text("states: {a: {initial: true}}")
    assert "nothing leaves the state 'a'" in perdure("process", "diagram", "--code", "bad.yaml", code=2).stderr


def test_which(perdure: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(here, monkeypatch, MODULE + OTHER)
    said = perdure("process", "diagram", "--code", f"{name}:desk", code=2).stderr
    assert "say which: --process Letter | Note" in said
    assert (
        "pinned --> gone : drop" in perdure("process", "diagram", "--code", f"{name}:desk", "--process", "Note").stdout
    )
    assert (
        "has no process 'X'; it has: Letter, Note"
        in perdure("process", "diagram", "--code", f"{name}:desk", "--process", "X", code=3).stderr
    )
    empty = module(here, monkeypatch, MODULE.partition("@")[0])
    assert "has no processes" in perdure("process", "diagram", "--code", f"{empty}:desk", code=2).stderr
    assert name in sys.modules
