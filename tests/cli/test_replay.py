"""``perdure replay``: the gate says who would break on new code, and where; and changes nothing."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perdure import Codec
from tests.cli.conftest import Cli
from tests.runtime.support import history, until

MODULE = """
import asyncio

from perdure import App, patched, recv

app = App("shop"{arguments})

@app.step
async def reserve(sku: str) -> str:
    with open("effects", "a") as effects:
        effects.write("reserve ")
    return sku

@app.step
async def check(sku: str) -> None:
    raise AssertionError("never run")

@app.workflow(name="checkout")
async def checkout(sku: str) -> str:
    {body}
    return await recv("go")

@app.workflow(name="post")
async def post(sku: str) -> None: ...

@app.workflow(name="parcel")
async def parcel() -> None:
    await reserve("box")
    await recv("go")
"""
FIRST = "await reserve(sku)"
SAFE = "await reserve(sku); await check(sku)"
BROKEN = "await check(sku)"
OTHERWISE = "await reserve(sku + '!')"
AT_ONCE = "await asyncio.gather(reserve(sku), reserve(sku)); await post(sku)"
IN_TURN = "await reserve(sku); await reserve(sku); await post(sku)"
PATCHED = "await check(sku) if patched('check') else None; await reserve(sku)"
ADVICE = "To let them go on as they began: if patched(…); or keep their version running until they are done"
numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, here: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{here}/.perdure/shop.db"


class Shop:
    """Modules in this directory, each a version of the shop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def module(self, body: str, arguments: str = "") -> str:
        name = f"shop_{next(numbers)}_of_{self.folder.name.replace('-', '_')}"
        (self.folder / f"{name}.py").write_text(MODULE.format(body=body, arguments=arguments))
        importlib.invalidate_caches()
        return name

    def begin(self, database: str, module: str) -> None:
        """Run that version until both of its workflows wait."""
        loaded = importlib.import_module(module)
        app: Any = loaded.app
        app._home.arguments["database"] = database

        async def go() -> None:
            async with app:
                await loaded.checkout.options(id="c-1").start("shoe")
                await loaded.parcel.options(id="p-1").start()
                for id in ("c-1", "p-1"):
                    await until(partial(history, app, id))

        asyncio.run(go())


@pytest.fixture
def shop(here: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.syspath_prepend(str(here))
    return Shop(here)


def test_code_that_fits_passes(perdure: Cli, shop: Shop, database: str) -> None:
    shop.begin(database, shop.module(FIRST))
    for body in (FIRST, SAFE, PATCHED):
        module = shop.module(body)
        said = perdure("replay", f"{module}:app", "--database", database)
        assert said.stdout == f"2 open workflows replayed on {module}:app: all would go on\n"
    document = perdure.json("replay", module, "--database", database)
    assert document == {"version": 1, "breaks": [], "checked": 2, "pinned": 0, "ok": True}
    assert (shop.folder / "effects").read_text() == "reserve reserve ", "as many as before the gate"


def test_the_same_call_in_another_place_is_told_from_other_arguments(perdure: Cli, shop: Shop, database: str) -> None:
    shop.begin(database, shop.module(AT_ONCE))
    said = perdure("replay", f"{shop.module(IN_TURN)}:app", "--database", database, code=1).stdout
    assert "  history  child post('shoe') at 5\n  code     child post('shoe') at 3\n" in said
    assert said.rstrip().endswith(ADVICE)


def test_code_that_does_not_fit_is_named_with_both_sides_and_the_line(perdure: Cli, shop: Shop, database: str) -> None:
    shop.begin(database, shop.module(FIRST))
    before = perdure.json("workflow", "history", "c-1", "-d", database)
    module = shop.module(BROKEN)
    said = perdure("replay", f"{module}:app", "--database", database, code=1).stdout
    assert re.sub(", version [0-9a-f]{12}:", ", version V:", said).splitlines() == [
        "c-1  checkout, queued, version V: nondeterminism",
        "  history  step reserve('shoe')",
        "  code     step check('shoe')",
        f"           {module}.py:20: await check(sku)",
        "",
        f"2 open workflows replayed on {module}:app: 1 would break: 1 nondeterminism. " + ADVICE,
    ]
    document = perdure.json("replay", module, "--database", database, code=1)
    (broken,) = document["breaks"]
    assert (broken["id"], broken["finding"], broken["line"]) == ("c-1", "nondeterminism", "await check(sku)")
    assert (broken["recorded"], broken["called"]) == ("step reserve('shoe')", "step check('shoe')")
    assert broken["where"] == f"{shop.folder / module}.py:20"
    assert perdure("replay", module, "-d", database, "-o", "ids", code=1).stdout == "c-1\n"
    (line,) = perdure("replay", module, "-d", database, "-o", "jsonl", code=1).stdout.splitlines()
    assert json.loads(line)["break"]["id"] == "c-1"
    assert perdure.json("workflow", "history", "c-1", "-d", database) == before


def test_the_advice_is_another_where_only_arguments_differ(perdure: Cli, shop: Shop, database: str) -> None:
    shop.begin(database, shop.module(FIRST))
    module = shop.module(OTHERWISE)
    said = perdure("replay", module, "-d", database, code=1).stdout
    assert "history  step reserve('shoe')\n  code     step reserve('shoe!')" in said
    assert "1 nondeterminism. Where only arguments differ, pass what was passed before. A field that a model" in said
    assert "To let them go on as they began: if patched" not in said
    both = shop.module(OTHERWISE)
    path = shop.folder / f"{both}.py"
    path.write_text(path.read_text().replace('await reserve("box")', 'await check("box")'))
    said = perdure("replay", both, "-d", database, code=1).stdout
    assert "2 nondeterminism. To let them go on as they began: if patched(…). Where only arguments differ" in said


def test_it_can_be_narrowed(perdure: Cli, shop: Shop, database: str) -> None:
    shop.begin(database, shop.module(FIRST))
    module = shop.module(BROKEN)
    said = perdure("replay", module, "--workflow", "parcel", "-d", database).stdout
    assert said == f"1 open workflow replayed on {module}: all would go on\n"
    assert perdure.json("replay", module, "--limit", 1, "-d", database)["checked"] == 1
    none = perdure("replay", module, "--workflow", "nothing", "-d", database).stdout
    assert none == f"no open workflows to replay on {module}\n"


def test_a_codec_of_the_app_is_used(perdure: Cli, shop: Shop, here: Path) -> None:
    (here / "turned.py").write_text(
        "from perdure import Codec\ncodec = Codec(encode=lambda b: b[::-1], decode=lambda b: b[::-1])\n"
    )
    url = f"sqlite:///{here}/.perdure/shop.db"
    arguments = ", codec=__import__('turned').codec"
    shop.begin(url, shop.module(FIRST, arguments))
    assert isinstance(importlib.import_module("turned").codec, Codec)
    assert "all would go on" in perdure("replay", shop.module(SAFE, arguments)).stdout
    said = perdure("replay", shop.module(SAFE), code=1).stdout
    assert "2 undecodable. Let the code take what is recorded" in said
    assert "patched" not in said


def test_what_cannot_be_looked_at(perdure: Cli, shop: Shop, here: Path) -> None:
    module = shop.module(FIRST)
    assert "there is no database here" in perdure("replay", module, code=4).stderr
    assert "there is no database file" in perdure("replay", module, "-d", "sqlite:///x.db", code=4).stderr
    assert not (here / "x.db").exists()
    assert "is the app 'shop', not 'other'" in perdure("replay", module, "--app", "other", code=2).stderr
    shop.begin(f"sqlite:///{here}/a.db", module)
    (here / "other_app.py").write_text("from perdure import App\napp = App('other')\n")
    assert "there is no app 'other'" in perdure("replay", "other_app", "-d", "sqlite:///a.db", code=3).stderr
