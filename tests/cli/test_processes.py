"""``perdure process …``, beside an app that works."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

CODE = """
from perdure import App
from perdure.process import Process, State

app = App("hr")

@app.process
class Vacation(Process):
    author: str
    days: int = 0
    note: str = ""
    draft = State(initial=True, settable=True)
    review = State(settable=True)
    gone = State(final=True)
    submit = draft.to(review, by="author")

    @review.to(gone)
    async def approve(self, comment: str = "") -> None:
        if comment == "none":
            raise ValueError("no comment")
        self.note = comment
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, here: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{here / 'hr.db'}"


async def test_a_process_by_the_command_line(
    database: str, here: Path, perdure: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"hr_{abs(hash(database)) % 10**9}"
    (here / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setenv("PERDURE_DATABASE_URL", database)
    app: Any = __import__(name).app

    async def cli(*args: object, code: int = 0) -> Any:
        return await asyncio.to_thread(perdure, "process", *args, code=code)

    async def told(*args: object) -> Any:
        return await asyncio.to_thread(perdure.json, "process", *args)

    async with app:
        assert (await told("start", "Vacation", "author=ann", "days=3", "--id", "v"))["process"]["id"] == "v"
        said = (await cli("start", "Vacation", "author=ann", "dys=3", code=2)).stderr
        assert said == "perdure: Vacation has no parameter 'dys'; it has: author, days, note\n"
        said = (await cli("start", "Vacation", "days=3", code=2)).stderr
        assert said == "perdure: Vacation needs the parameter 'author'; give author=…\n"
        while (await told("show", "v"))["process"]["status"] != "Idled":
            pass
        shown = (await told("show", "v"))["process"]
        assert (shown["state"], shown["parameters"]) == ("draft", {"author": "ann", "days": 3, "note": ""})
        assert "no command in state 'draft'" in (await cli("execute", "v", "approve", code=1)).stderr
        done = (await told("execute", "v", "submit", "--actor", "ann"))["process"]
        assert done == {"id": "v", "status": "Idled", "state": "review"}
        listed = (await told("list", "--state", "review"))["processes"]
        assert [(one["id"], one["type"], one["status"]) for one in listed] == [("v", "Vacation", "Idled")]
        assert json.loads((await cli("list", "-o", "jsonl")).stdout) == {"version": 1, "process": listed[0]}
        assert "state draft" in (await cli("set-state", "v", "draft", "days=5", "--reason", "wrong")).stdout
        assert (await told("show", "v"))["process"]["parameters"]["days"] == 5
        assert "no automatic exit holds" in (await cli("resume", "v")).stderr
        await cli("execute", "v", "submit", "--actor", "ann")
        assert (await told("commands", "v"))["commands"] == [{"name": "approve", "parameters": ["comment"], "asks": []}]
        drawn = (await cli("diagram", "v", "--code", name)).stdout
        assert "stateDiagram-v2" in drawn
        assert "review" in drawn
        said = (await cli("execute", "v", "approve", "comment=55", code=1)).stderr
        assert "as text it has quotes of its own: comment='\"55\"'" in said
        await cli("execute", "v", "approve", "comment=fine")
        [ended] = (await told("list", "--state", "gone"))["processes"]
        assert ended["status"] == "Finalized"
        steps = (await told("history", "v"))["history"]
        assert [(step["to"], step["trigger"]) for step in steps] == [
            ("draft", "start"), ("review", "command"), ("draft", "set"), ("draft", "resume"), ("review", "command"),
            ("gone", "command"),
        ]  # fmt: skip
        assert "to delete it: --yes" in (await cli("delete", "v", code=2)).stderr
        await cli("delete", "v", "--yes")
        await cli("show", "v", code=3)


async def test_one_in_error_is_seen(database: str, here: Path, perdure: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hr_error_{abs(hash(database)) % 10**9}"
    (here / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setenv("PERDURE_DATABASE_URL", database)
    module: Any = __import__(name)
    async with module.app:
        for id in ("v", "w"):
            p = await module.Vacation.options(id=id).start(author="ann")
            await p.execute("submit", actor="ann")
        with pytest.raises(ValueError, match="no comment"):
            await p.execute("approve", comment="none")
        told = (await asyncio.to_thread(perdure, "doctor", code=1)).stdout
        assert re.search(r"✗ hr: in Error +1 process in Error: 1 of Vacation\n", told)
        assert "→ perdure process list --status Error" in told
        shown = await asyncio.to_thread(perdure.json, "process", "list", "--status", "Error")
        assert [one["id"] for one in shown["processes"]] == ["w"]
        shown = await asyncio.to_thread(perdure.json, "process", "list", "--status", "Idled")
        assert [one["id"] for one in shown["processes"]] == ["v"]
        await p.execute("approve", comment="fine")
        assert (await asyncio.to_thread(perdure, "doctor")).stdout.endswith("all is well\n")
