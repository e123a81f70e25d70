"""``perdure batch …``, and ``--query`` of the commands for one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from perdure.cli import progress
from perdure.cli.output import glyphs
from perdure.model.batches import BatchInfo, BatchState
from perdure.model.info import to_datetime
from perdure.store.open import open_store
from tests.cli.conftest import PERDURE, Cli, play

WHY = ("--reason", "over", "--yes")


@pytest.fixture
def parcels(url: str) -> str:
    """Three parcels that wait for a word, and a checkout that is completed; nobody works any more."""

    async def scene(app: App, shop: Any) -> None:
        parcel = app.client.workflow("parcel", returns=object)
        for n in range(3):
            await parcel.options(id=f"p-{n}").start()
        await app.client.workflow("checkout", returns=object).options(id="c-1")("a", 1)
        await claimed(app)

    play(url, scene)
    return url


async def claimed(app: App, _shop: object = None) -> None:
    """The parcels have begun."""
    while await app.client.count("type = parcel AND started IS NOT NULL") < 3:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)  # waits: for the parcels to be claimed


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def states(url: str, *ids: str) -> list[str]:
    async def read() -> list[str]:
        store = open_store(url, "shop")
        await store.open()
        try:
            rows = await store.rows(ids)
        finally:
            await store.close()
        return [str(rows[id].status) if id in rows else "gone" for id in ids]

    return asyncio.run(read())


def test_without_yes_and_reason_it_is_a_plan(perdure: Cli, parcels: str) -> None:
    before = states(parcels, "p-0", "c-1")
    for options in ((), ("--yes",), ("--reason", "why")):
        result = perdure("batch", "apply", "terminate", "id IS NOT NULL", *options, code=1)
        assert "nothing was changed: to terminate them, add --yes and --reason TEXT" in result.stderr
    assert lines(result.stdout)[0].split() == ["COUNT", "TYPE", "VERSION", "STATUS", "PROBLEM"]
    assert lines(result.stdout)[-1].startswith("terminate: 4 workflows, 3 of them to be changed; key terminate-")
    assert "left as they are" in result.stdout
    assert states(parcels, "p-0", "c-1") == before
    assert perdure("batch", "list").stdout == "no batches\n"


def test_applied_shown_listed_and_ordered_again(perdure: Cli, parcels: str) -> None:
    result = perdure("batch", "apply", "terminate", "id IS NOT NULL", "--key", "k", *WHY)
    assert result.stdout == "batch k is done: terminate, 4 workflows: 3 done, 1 skipped, 0 failed\n"
    assert states(parcels, "p-0", "p-1", "p-2", "c-1") == ["terminated"] * 3 + ["completed"]
    again = perdure("batch", "apply", "terminate", "id IS NOT NULL", "--key", "k", *WHY)
    assert again.stdout == result.stdout
    assert "batch k was ordered before, by " in again.stderr
    other = perdure("batch", "apply", "cancel", "id IS NOT NULL", "--key", "k", *WHY, code=1)
    assert "the key 'k' is that of the batch terminate: id IS NOT NULL" in other.stderr
    another = perdure.json("batch", "apply", "terminate", "id IS NOT NULL", "--key", "k", "--again", *WHY)["batch"]
    assert (another["key"], another["skipped"], another["failures"]) == ("k-2", 4, [])
    listed = perdure.json("batch", "list")["batches"]
    assert [one["key"] for one in listed] == ["k-2", "k"]
    assert perdure("batch", "list", "-o", "ids", "--limit", 1).stdout == "k-2\n"
    one_a_line = perdure("batch", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in one_a_line] == [{"version": 1, "batch": one} for one in listed]
    shown = perdure.json("batch", "show", "k")["batch"]
    assert {one["id"]: (one["state"], one["detail"]) for one in shown["targets"]} == {
        "c-1": ("skipped", "it is completed"), **dict.fromkeys(("p-0", "p-1", "p-2"), ("done", "terminated")),
    }  # fmt: skip
    assert [one["verb"] for one in shown["asked"]] == ["batch terminate"]
    for one in [*shown["targets"], *shown["asked"]]:
        assert datetime.fromisoformat(one["at"]) >= datetime.fromisoformat(shown["created"])
    text = perdure("batch", "show", "k", "--state", "done", "--limit", 2).stdout
    assert "(the first 2; for more: --limit 20)" in text
    assert "ordered by " in text
    assert "p-0  done" in text
    planned = perdure("batch", "plan", "terminate", "id IS NOT NULL", "--key", "k").stdout
    assert "ordered before: batch k is done" in planned


def test_what_has_failed_is_told_and_the_command_fails(perdure: Cli, parcels: str) -> None:
    result = perdure("batch", "apply", "delete", "type = parcel", "--key", "k", *WHY, code=1)
    assert lines(result.stdout)[0] == "batch k is done: delete, 3 workflows: 0 done, 0 skipped, 3 failed"
    assert lines(result.stdout)[1].startswith("  p-0: it is ")
    assert lines(result.stdout)[-1] == "to try these again: perdure batch retry k"
    perdure("batch", "apply", "terminate", "status = open", *WHY)
    again = perdure("batch", "retry", "k", "--because", "they have ended")
    assert again.stdout == "batch k is done: delete, 3 workflows: 3 done, 0 skipped, 0 failed\n"
    assert states(parcels, "p-0", "c-1") == ["gone", "completed"]
    assert perdure("batch", "retry", "k").stdout == again.stdout


def test_lines_for_programs(perdure: Cli, parcels: str) -> None:
    said = perdure("batch", "apply", "cancel", "type = parcel", "--rate", "1000/s", *WHY, "-o", "jsonl").stdout
    found = [json.loads(line)["batch"] for line in said.splitlines()]
    assert [one["waiting"] for one in found] == [0, 0], "of the chunk, and of the end"
    assert found[-1]["failures"] == []
    assert found[0]["rate"] == 1000.0
    watched = perdure("batch", "watch", found[0]["key"]).stdout
    assert [json.loads(line)["batch"]["state"] for line in watched.splitlines()] == ["done"]
    assert perdure("batch", "resume", found[0]["key"], "-o", "ids").stdout == found[0]["key"] + "\n"


def test_interrupted_it_is_gone_on_with_by_the_same_command(perdure: Cli, parcels: str, here: Path) -> None:
    order = ("batch", "apply", "terminate", "type = parcel", "--key", "k", "--rate", "0.5", *WHY)
    process = subprocess.Popen(
        [*PERDURE, *order, "-d", parcels, "-o", "jsonl"], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["batch"]["done"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted with 2 left; to go on: perdure batch resume k" in errors
    perdure("batch", "cancel", "k")
    again = perdure(*order, code=1)
    assert again.stdout == "batch k is cancelled: terminate, 3 workflows: 1 done, 0 skipped, 0 failed, 2 left\n"
    assert "which is final" in perdure("batch", "resume", "k", code=1).stderr


def test_what_is_over_or_not_there(perdure: Cli, parcels: str) -> None:
    key = perdure("batch", "apply", "cancel", "type = parcel", *WHY, "-o", "ids").stdout.strip()
    done = perdure("batch", "cancel", key, code=1)
    assert "it was done already: nothing was left to cancel" in done.stderr
    for verb in ("show", "watch", "resume", "retry", "cancel"):
        assert "has no batch 'none'" in perdure("batch", verb, "none", code=3).stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("cancel", "statsu = open"), "column 1: there is no field 'statsu'"),
        (("cancel", ""), "a batch takes a query"),
        (
            ("cancel", "status = open", "--version", "v1"),
            "cancel does not take --version; it takes no options of its own",
        ),
        (("resume", "status = open", "--terminate"), "resume does not take --terminate; it takes --version, --force"),
        (("cancel", "status = open", "--rate", "fast"), "rate='fast' is no rate"),
        (("cancel", "status = open", "--key", ""), "'' is no key of a batch: give 1 to 200 printable characters"),
        (("cancle", "status = open"), "'cancle' is not one of 'cancel'"),
    ],
)
def test_mistakes(perdure: Cli, parcels: str, args: tuple[str, ...], said: str) -> None:
    assert said in perdure("batch", "apply", *args, *WHY, code=2).stderr


def test_the_commands_for_one_take_a_query(perdure: Cli, parcels: str) -> None:
    def apply(verb: str, *options: str, code: int = 0) -> str:
        return perdure("workflow", verb, "--query", "type = parcel", *options, code=code).stdout

    assert "to be changed; key pause-" in apply("pause", code=1)
    assert "3 workflows: 3 done" in apply("pause", *WHY)
    assert "3 workflows: 3 done" in apply("unpause", "--key", "back", *WHY)
    assert "3 workflows: 3 done" in apply("restart", "--terminate", *WHY)
    assert states(parcels, "p-0", "p-0-2") == ["terminated", "queued"]
    assert "6 workflows: 6 done" in apply("fork", *WHY)
    assert "3 failed" in apply("resume", *WHY, code=1)
    assert "left" not in apply("cancel", "--rate", "5000", *WHY)
    shown = perdure.json("batch", "list")["batches"]
    assert [one["verb"] for one in shown] == ["cancel", "resume", "fork", "restart", "unpause", "pause"]


def test_ids_or_a_query(perdure: Cli, parcels: str) -> None:
    assert "give one of them" in perdure("workflow", "cancel", "p-0", "--query", "id = 'p-0'", code=2).stderr
    assert "Missing argument 'ID...'" in perdure("workflow", "cancel", code=2).stderr
    assert "give --query with them" in perdure("workflow", "resume", "p-0", "--rate", "5", code=2).stderr
    assert "--id is for one workflow" in perdure(
        "workflow", "restart", "--query", "id = 'p-0'", "--id", "new", *WHY, code=2
    ).stderr  # fmt: skip
    assert "--input is for one workflow" in perdure(
        "workflow", "fork", "--query", "id = 'p-0'", "--input", "[]", *WHY, code=2
    ).stderr  # fmt: skip


CODE = """
from perdure import App
shop = App('shop')
@shop.step(name='charge')
async def charge(order, cents): return 'x'
@shop.step(name='weigh')
async def weigh(): return 1
@shop.workflow(name='checkout')
async def checkout(order, cents=5): return {'charge': await {call}, 'cents': cents}
"""


def test_samples_are_replayed_on_code_that_is_here(
    perdure: Cli, parcels: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "same_code.py").write_text(CODE.replace("{call}", "charge(order, cents)"))
    (here / "other_code.py").write_text(CODE.replace("{call}", "weigh()"))
    monkeypatch.syspath_prepend(str(here))
    plan = ("batch", "plan", "fork", "type = checkout", "--version", "v9")
    [same] = perdure.json(*plan, "--code", "same_code:shop")["plan"]["samples"]
    assert (same["id"], same["verdict"]) == ("c-1", "safe")
    [other] = perdure.json(*plan, "--code", "other_code:shop", code=1)["plan"]["samples"]
    assert (other["verdict"], other["step"], other["called"]) == ("diverges", "1", "step weigh")
    text = lines(perdure(*plan, "--code", "other_code:shop", code=1).stdout)
    assert text[-4:] == [
        f"  diverges  c-1  checkout, version {other['version']}", "            at step 1",
        f"            history  {other['recorded']}", "            code     step weigh",
    ]  # fmt: skip
    nobody = perdure(*plan).stdout
    assert "unknown   c-1  checkout" in nobody
    assert "no live executor runs version 'v9'" in nobody
    assert perdure.json(*plan, "--samples", 0)["plan"]["samples"] == []


# -- the bar


def info(**more: Any) -> BatchInfo:
    fields: dict[str, Any] = {
        "key": "k", "verb": "cancel", "options": {}, "query": "q", "state": BatchState.RUNNING, "total": 200,
        "done": 90, "skipped": 5, "failed": 5, "waiting": 100, "rate": None, "by": "ann", "reason": "why",
        "created": to_datetime(0), "updated": to_datetime(0), "closed": None,
    }  # fmt: skip
    return BatchInfo(**{**fields, **more})


def test_a_bar_is_drawn_where_it_stands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = progress.shower("table")
    for waiting in (100, 100, 0):
        shown.goes_on(info(waiting=waiting))
    shown.ended()
    mark = glyphs()
    half, full = f"{mark.bar * 15}{mark.wait * 15}  50 %  100/200", f"{mark.bar * 30} 100 %  200/200"
    clear = "\r\x1b[K"
    assert capsys.readouterr().out == f"{clear}cancel {half}, 5 failed{clear}cancel {full}, 5 failed\n"
    assert progress.bar(info(total=0, waiting=0, failed=0), 80) == f"cancel {mark.bar * 30} 100 %  0/0"


def test_moved_and_reset_by_a_query(perdure: Cli, parcels: str) -> None:
    move = ("workflow", "move", "--query", "type = parcel", "--to", "v9", "--force", *WHY)
    moved = perdure(*move).stdout
    assert moved.endswith(" is done: move, 3 workflows: 3 done, 0 skipped, 0 failed\n")
    assert perdure(*move).stdout == moved, "ordered twice, it is done once"
    assert {one["version"] for one in perdure.json("workflow", "list", "type = parcel")["workflows"]} == {"v9"}
    reset = ("apply", "reset", "id IN (c-1, p-0)", "--to", "first", "--exclude", "all", "--move-to", "v9", "--force")
    begun = perdure("batch", *reset, "--key", "k", *WHY).stdout
    assert begun == "batch k is done: reset, 2 workflows: 2 done, 0 skipped, 0 failed\n"
    assert states(parcels, "c-1", "p-0") == ["queued"] * 2
    same = perdure("workflow", *reset[1:2], "--query", *reset[2:], "--key", "k", *WHY)
    assert same.stdout == begun
    assert "batch k was ordered before" in same.stderr
    assert [one["run"] for one in perdure.json("batch", "show", "k")["batch"]["targets"]] == [1, 1]


def test_a_verb_says_what_it_needs_and_what_it_does_not_take(perdure: Cli, parcels: str) -> None:
    for words, said in (
        (("move",), "move needs --to; see: perdure workflow move --help"),
        (
            ("move", "--to", "v1", "--exclude", "all"),
            "move does not take --exclude; it takes --to, --one-time, --force",
        ),
        (("move", "--to", "unset", "--one-time"), "one_time (--one-time) goes with a version, not with to='unset'"),
        (("cancel", "--to", "first"), "cancel does not take --to"),
    ):
        verb, *options = words
        assert said in perdure("batch", "plan", verb, "status = open", *options, code=2).stderr
    unknown = perdure("batch", "apply", "move", "status = open", "--to", "v9", *WHY, code=3).stderr
    assert "version 'v9' of shop was never launched" in unknown
