"""``perdure workflow …`` on a database whose executors come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.cli import workflows
from perdure.errors import WorkflowFailed
from perdure.model.ids import RunKey
from perdure.model.states import Reason
from perdure.model.writes import Hold, Unit
from perdure.store.asks import ClaimRequest
from perdure.store.open import open_store
from tests.cli.conftest import Cli, Running, play, until


async def a_day(app: Any, shop: Any) -> None:
    """One completed, one failed, one that waits for a message."""

    def workflow(name: str, id: str) -> Any:
        return app.client.workflow(name, returns=object).options(id=id)

    await (await workflow("checkout", "o-1").start("a", 1999)).result()
    with pytest.raises((ValueError, WorkflowFailed)):
        await (await workflow("refuse", "bad-1").start("4242")).result()
    await (await workflow("family", "f-1").start("c")).result()
    await workflow("parcel", "p-1").start()


@pytest.fixture
def day(url: str) -> str:
    play(url, a_day)
    return url


def store_of(url: str, do: Callable[[Any], Any]) -> Any:
    async def go() -> Any:
        store = open_store(url, "shop")
        await store.open()
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(go())


def hold(url: str, id: str, reason: Reason, detail: str) -> None:
    async def do(store: Any) -> None:
        version = (await store.rows([id]))[id].version
        (claimed,) = await store.claim(ClaimRequest(owner=b"o" * 16, token=b"t" * 16, version=version, limit=1))
        assert claimed.row.id == id
        unit = Unit(key=RunKey(id, 1), claim=b"t" * 16, nonce=b"n" * 16, change=Hold(reason, detail))
        assert (await store.commit([unit])).verdicts[0].applied

    store_of(url, do)


# -- list


def test_list_newest_first(perdure: Cli, day: str) -> None:
    lines = perdure("workflow", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "TYPE", "STATUS", "CREATED", "DURATION"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["p-1", "parcel", "queued"],
        ["f-1:1", "checkout", "completed"],
        ["f-1", "family", "completed"],
        ["bad-1", "refuse", "failed"],
        ["o-1", "checkout", "completed"],
    ]
    document = perdure.json("workflow", "list", "--limit", 2)
    assert document["more"] is True
    first = document["workflows"][0]
    assert (first["id"], first["name"], first["status"], first["run"]) == ("p-1", "parcel", "queued", 1)
    assert first["created"].endswith("Z")
    one_a_line = perdure("workflow", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["workflow"]["id"] for line in one_a_line] == ["p-1", "f-1:1", "f-1", "bad-1", "o-1"]
    assert {json.loads(line)["version"] for line in one_a_line} == {1}
    assert perdure("workflow", "list", "-o", "ids", "--limit", 1).stdout == "p-1\n"
    assert "for more: --limit 10" in perdure("workflow", "list", "--limit", 1).stdout


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "failed"], ["bad-1"]),
        (["--status", "failed", "--status", "open"], ["p-1", "bad-1"]),
        (["--type", "checkout"], ["f-1:1", "o-1"]),
        (["--type", "checkout", "--type", "refuse", "--status", "closed"], ["f-1:1", "bad-1", "o-1"]),
        (["--query", "status = failed AND type = refuse"], ["bad-1"]),
        (["--query", "status = closed", "--status", "completed", "--type", "family"], ["f-1"]),
        (["--query", "parent = f-1"], ["f-1:1"]),
        (["--type", "nothing"], []),
    ],
)
def test_list_filters(perdure: Cli, day: str, options: list[str], ids: list[str]) -> None:
    assert perdure("workflow", "list", "-o", "ids", *options).stdout.split() == ids


def test_list_of_nothing_and_errors(perdure: Cli, day: str) -> None:
    assert perdure("workflow", "list", "--type", "nothing").stdout == "no workflows match\n"
    assert perdure.json("workflow", "list", "--type", "nothing")["workflows"] == []
    assert (
        "'fialed' is not a status (did you mean 'failed'?)"
        in perdure("workflow", "list", "--status", "fialed", code=2).stderr
    )
    assert (
        "there is no field 'stats' (did you mean 'status'?)"
        in perdure("workflow", "list", "--query", "stats = x", code=2).stderr
    )
    assert (
        perdure("workflow", "list", "--query", "status = failed", "--status", "open").stdout == "no workflows match\n"
    )
    perdure("workflow", "list", "--limit", 0, code=2)
    assert "the most that can be asked for" in perdure("workflow", "list", "--limit", 2**63, code=2).stderr


# -- show, history


def test_show_completed(perdure: Cli, day: str) -> None:
    lines = perdure("workflow", "show", "o-1").stdout.splitlines()
    assert lines[0] == "o-1  checkout  completed"
    text = "\n".join(lines)
    assert 'input     ["a",1999]' in text
    assert "✗ charge('a', 1999), attempt 1 → ConnectionError: no route" in text
    assert "✓ charge('a', 1999), attempt 2 → \"charge-a\"" in text
    assert "completed" in lines[-3]
    assert lines[-1] == 'result: {"charge":"charge-a","cents":1999}'
    assert "\x1b" not in text
    fields = perdure.json("workflow", "show", "o-1")["workflow"]
    assert fields["input"] == ["a", 1999]
    assert fields["value"] == {"charge": "charge-a", "cents": 1999}
    assert [(span["kind"], span["attempt"], span["outcome"]) for span in fields["timeline"]] == [
        ("attempt", 1, "error"),
        ("step", 2, "value"),
    ]
    assert fields["advice"] == []


def test_show_failed(perdure: Cli, day: str) -> None:
    text = perdure("workflow", "show", "bad-1").stdout
    assert "✗ decline(********) → ValueError: card\\x1b[31m declined" in text
    assert "ValueError: card\\x1b[31m declined (from step decline, path 1)" in text
    assert 'shop.py", line' in text
    assert "perdure/runtime" not in text
    assert "\x1b" not in text
    fields = perdure.json("workflow", "show", "bad-1")["workflow"]
    assert fields["failed_at"] == {"seq": 1, "path": "1", "name": "decline"}
    assert fields["error"]["type"] == "ValueError"
    assert "decline" in fields["error"]["traceback"]


def test_show_of_a_family_measures_concurrent_calls_each_on_its_own(perdure: Cli, day: str) -> None:
    text = perdure("workflow", "show", "f-1").stdout
    assert "✓ child checkout('c', 7) → f-1:1" in text
    assert "✓ result f-1:1 →" in text
    assert "✓ sleep\n" in text
    assert "parent    f-1 (run 1, call 1)" in perdure("workflow", "show", "f-1:1").stdout


def test_show_what_waits_for_an_executor(perdure: Cli, day: str) -> None:
    perdure("workflow", "start", "parcel", "--id", "p-2")
    text = perdure("workflow", "show", "p-2").stdout
    assert "(not begun yet)" in text
    assert "do        no executor of app 'shop' is alive; start one: perdure run MODULE:APP" in text


def test_show_held(perdure: Cli, url: str) -> None:
    play(url, nothing)
    perdure("workflow", "start", "checkout", '"x"', "--id", "h-1", "--app", "shop")
    hold(url, "h-1", Reason.NONDETERMINISM, "at 2: history has step a\nthe code has step b")
    text = perdure("workflow", "show", "h-1").stdout
    assert "held      nondeterminism since" in text
    assert "            the code has step b" in text
    assert "deploy code that asks for the same ones" in text
    assert "to give it up, without its cleanup: perdure workflow cancel h-1" in text
    assert perdure.json("workflow", "show", "h-1")["workflow"]["reason"] == "nondeterminism"
    assert "nondeterminism: at 2" in perdure("workflow", "list").stdout
    said = perdure("workflow", "result", "h-1", "--timeout", 0.1, code=5).stderr
    assert "workflow h-1 is held (nondeterminism)" in said
    said = "cancelled without cleanup: it was held (nondeterminism): at 2: history has step a"
    assert perdure("workflow", "cancel", "h-1", "--reason", "enough").stdout.startswith(f"h-1: {said}")
    assert f"because   {said}" in perdure("workflow", "show", "h-1").stdout


def test_show_what_nobody_can_read_names_the_way_to_drop_it(perdure: Cli, url: str) -> None:
    play(url, nothing)
    perdure("workflow", "start", "checkout", '"x"', "--id", "h-1", "--app", "shop")
    hold(url, "h-1", Reason.UNDECODABLE, "at 2: what history has of recv paid: value: expected int")
    perdure("workflow", "start", "checkout", '"x"', "--id", "h-2", "--app", "shop")
    hold(url, "h-2", Reason.UNDECODABLE, "args[0]: expected int")
    assert "perdure workflow reset h-1 --to 2 --exclude messages" in perdure("workflow", "show", "h-1").stdout
    assert "to drop that message" not in perdure("workflow", "show", "h-2").stdout


async def nothing(app: Any, shop: Any) -> None:
    """Only opened."""


def test_every_reason_has_advice() -> None:
    from perdure.cli.story import _ADVICE

    assert set(_ADVICE) == set(Reason)


def test_show_unknown(perdure: Cli, day: str) -> None:
    assert "app 'shop' has no workflow 'nope'" in perdure("workflow", "show", "nope", code=3).stderr
    said = perdure("workflow", "show", "o-1", "--run", 7, code=3).stderr
    assert "workflow 'o-1' has no run 7; its latest is run 1" in said
    perdure("workflow", "show", "o-1", "--run", 1)
    perdure("workflow", "show", code=2)


def test_history(perdure: Cli, day: str) -> None:
    lines = perdure("workflow", "history", "o-1").stdout.splitlines()
    assert lines[0].split() == ["SEQ", "PATH", "KIND", "NAME", "ATTEMPT", "AT", "VERSION", "SHOWN", "OUTCOME"]
    assert lines[1].split()[:4] == ["1", "1", "attempt", "charge"]
    document = perdure.json("workflow", "history", "o-1")
    assert (document["workflow"], document["run"]) == ("o-1", 1)
    last = document["records"][-1]
    assert (last["kind"], last["name"], last["value"], last["shown"]) == ("step", "charge", "charge-a", "'a', 1999")
    assert perdure("workflow", "history", "o-1", "-o", "ids").stdout.split() == ["1", "2"]
    perdure("workflow", "start", "parcel", "--id", "p-2")
    assert "has no records yet" in perdure("workflow", "history", "p-2").stdout
    perdure("workflow", "history", "nope", code=3)


# -- result


def test_result(perdure: Cli, day: str) -> None:
    assert json.loads(perdure("workflow", "result", "o-1").stdout) == {"charge": "charge-a", "cents": 1999}
    outcome = perdure.json("workflow", "result", "o-1")["outcome"]
    assert outcome == {"id": "o-1", "run": 1, "status": "completed", "result": {"charge": "charge-a", "cents": 1999}}


def test_result_of_a_failure(perdure: Cli, day: str) -> None:
    result = perdure("workflow", "result", "bad-1", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("ValueError: card\\x1b[31m declined\n")
    outcome = perdure.json("workflow", "result", "bad-1", code=1)["outcome"]
    assert outcome["status"] == "failed"
    assert outcome["error"]["type"] == "ValueError"


def test_result_that_does_not_come(perdure: Cli, day: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = perdure("workflow", "result", "p-1", "--timeout", 0.05, code=5).stderr
    assert "workflow p-1 did not end within 0.05 s" in said
    assert "no executor of app 'shop' is alive" in said
    monkeypatch.setattr("perdure.cli.waiting.wait_end.__kwdefaults__", {"alone": 0.05, "tell": print})
    assert "waited 0.05 s in vain" in perdure("workflow", "result", "p-1", code=5).stderr
    assert "has no workflow 'nope'" in perdure("workflow", "result", "nope", code=3).stderr


# -- start


def test_start_queues_for_an_executor(perdure: Cli, day: str) -> None:
    result = perdure("workflow", "start", "checkout", '"b"', "7", "--id", "o-2")
    assert result.stdout == "o-2\n"
    assert "it is queued; no executor of app 'shop' is alive; start one: perdure run MODULE:APP" in result.stderr
    fields = perdure.json("workflow", "start", "checkout", '"c"', "--arg", "cents=8", "--id", "o-3")["workflow"]
    assert (fields["id"], fields["status"]) == ("o-3", "queued")

    async def wait(app: Any, shop: Any) -> tuple[object, object]:
        return await app.client.handle("o-2").result(), await app.client.handle("o-3").result()

    assert play(day, wait) == ({"charge": "charge-b", "cents": 7}, {"charge": "charge-c", "cents": 8})


def test_start_says_all_that_a_queue_needs(perdure: Cli, day: str) -> None:
    def start(*how: object) -> dict[str, Any]:
        said = perdure.json("workflow", "start", "checkout", '"b"', "--queue", "mail", *how)
        fields: dict[str, Any] = said["workflow"]
        return fields

    assert start("--id", "q-1", "--priority", "-3", "--partition", "eu", "--expires", "1h")["status"] == "queued"
    assert start("--id", "q-2", "--delay", "5m", "--dedup", "k")["status"] == "scheduled"
    assert start("--dedup", "k")["id"] == "q-2", "the key is taken"
    perdure("workflow", "start", "checkout", '"b"', "--queue", "mail", "--dedup", "k", "--on-conflict", "fail", code=1)
    assert start("--dedup", "l", "--debounce", "1m", "--debounce-max", "1h", "--timeout", "2h")["status"] == "scheduled"
    assert start("--delay", "2130-01-01T02:00+01:00")["status"] == "scheduled"

    async def look(store: Any) -> Any:
        return (await store.rows(["q-1"]))["q-1"]

    row = store_of(day, look)
    assert (row.queue, row.priority, row.partition) == ("mail", -3, "eu")
    assert row.expires == row.created + 3_600_000_000
    assert "give queue= as well" in perdure("workflow", "start", "x", "--partition", "eu", code=2).stderr
    assert "has no offset" in perdure("workflow", "start", "x", "--delay", "2130-01-01", code=2).stderr
    assert "is no duration" in perdure("workflow", "start", "x", "--timeout", "soon", code=2).stderr
    assert "'9999999999d' is more" in perdure("workflow", "start", "x", "--delay", "9999999999d", code=2).stderr


def test_start_goes_where_the_rollout_says(perdure: Cli, day: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(id: str) -> str:
        fields: dict[str, str] = perdure.json("workflow", "start", "checkout", '"a"', "7", "--id", id)["workflow"]
        return fields["version"]

    assert version_of("o-8") == ""
    monkeypatch.setenv("PERDURE_ROLLOUT", "manual")
    current = perdure.json("workflow", "show", "o-1")["workflow"]["version"]
    assert current != ""
    assert version_of("o-9") == current


def test_start_twice(perdure: Cli, day: str) -> None:
    again = perdure("workflow", "start", "checkout", '"a"', "1999", "--id", "o-1")
    assert "o-1 was there already (completed); this start is answered by it" in again.stderr
    said = perdure("workflow", "start", "checkout", '"a"', "2000", "--id", "o-1", code=1).stderr
    assert "workflow id 'o-1' is taken by checkout" in said


def test_start_and_send_end_while_the_database_is_locked(
    perdure: Cli, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    perdure("workflow", "start", "checkout", '"d"', "7", "--id", "o-4")
    other = apsw.Connection(day.removeprefix("sqlite:///"))
    with monkeypatch.context() as away:
        away.setenv("PERDURE_PATIENCE", "0.2")
        away.setattr(workflows, "_line", locked_by(other))
        said = perdure("workflow", "start", "checkout", '"e"', "7", "--id", "o-5", code=4).stderr
        assert "the database has not answered for 0.2 s (patience)" in said
        assert "is unknown: repeat it with .options(id='o-5') or --id o-5, which starts it once" in said
        other.execute("rollback")
        said = perdure("workflow", "send", "o-4", "1", "--key", "k", code=4).stderr
        assert "send it again with the same key, which delivers it once" in said
        other.close()
    perdure("workflow", "start", "checkout", '"e"', "7", "--id", "o-5")
    perdure("workflow", "send", "o-4", "1", "--key", "k")
    assert [row["id"] for row in perdure.json("workflow", "list", "id = 'o-5'")["workflows"]] == ["o-5"]


def locked_by(other: Any) -> Any:
    """Once the command's connection is open, another program keeps the database."""
    real = workflows._line

    @contextlib.asynccontextmanager
    async def line(store: Any) -> Any:
        async with real(store) as opened:
            other.set_busy_timeout(10_000)
            await asyncio.to_thread(other.execute, "begin immediate")
            yield opened

    return line


def test_start_errors(perdure: Cli, day: str) -> None:
    said = perdure("workflow", "start", "checkout", "a", code=2).stderr
    assert "argument 1 is not JSON: 'a'. Text needs its own quotes: '\"a\"'" in said
    assert "--arg 'cents' is not NAME=JSON" in perdure("workflow", "start", "checkout", "--arg", "cents", code=2).stderr
    assert "--arg cents is not JSON" in perdure("workflow", "start", "checkout", "--arg", "cents=x", code=2).stderr
    assert "workflow id ''" in perdure("workflow", "start", "checkout", "--id", "", code=2).stderr
    assert "did you mean 'checkout'?" in perdure("workflow", "start", "chekout", '"a"').stderr


def test_start_of_an_app_that_is_new_here(perdure: Cli, here: Path) -> None:
    perdure("db", "migrate", "-d", "new.db")
    perdure("workflow", "start", "checkout", '"a"', "-d", "new.db", code=3)
    assert perdure("workflow", "start", "checkout", '"a"', "-d", "new.db", "--app", "shop", "--id", "x").stdout == "x\n"
    assert perdure("workflow", "list", "-d", "new.db", "-o", "ids").stdout == "x\n"


# -- send


def test_send(perdure: Cli, day: str) -> None:
    result = perdure("workflow", "send", "p-1", "true", "--topic", "shipped", "--key", "k")
    assert result.stdout == "sent to p-1\n"
    assert "it will be received later; no executor of app 'shop' is alive" in result.stderr
    assert perdure.json("workflow", "send", "p-1", "false", "--topic", "shipped", "--key", "k")["message"] == {
        "id": "p-1", "topic": "shipped", "key": "k", "sent": True,
    }  # fmt: skip

    async def wait(app: Any, shop: Any) -> object:
        return await app.client.handle("p-1").result()

    assert play(day, wait) is True  # the first one; the second had the same key


def test_send_errors(perdure: Cli, day: str) -> None:
    assert "has no workflow 'nope'" in perdure("workflow", "send", "nope", "1", code=3).stderr
    said = perdure("workflow", "send", "o-1", "1", code=1).stderr
    assert "workflow 'o-1' is completed and takes no more messages" in said
    assert "the message is not JSON: 'yes'" in perdure("workflow", "send", "p-1", "yes", code=2).stderr
    assert "None was sent" in perdure("workflow", "send", "p-1", "null", code=2).stderr


# -- cancel


def test_cancel(perdure: Cli, day: str) -> None:
    perdure("workflow", "start", "parcel", "--id", "p-2")
    assert perdure("workflow", "cancel", "p-2", "--reason", "a test").stdout == "p-2: cancelled\n"
    assert perdure("workflow", "cancel", "p-2").stdout == "p-2: cancelled\n"
    assert perdure("workflow", "cancel", "o-1", "p-2", code=1).stdout.startswith("o-1: not cancelled: it is completed")
    answers = perdure.json("workflow", "cancel", "nope", "p-2", code=3)["answers"]
    assert [(answer["id"], answer["status"]) for answer in answers] == [("nope", None), ("p-2", "cancelled")]
    perdure("workflow", "cancel", code=2)
    said = perdure("workflow", "result", "p-2", code=1).stderr
    assert "WorkflowCancelled: workflow p-2 was cancelled" in said


def test_cancel_with_nobody_there_says_so(perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path) -> None:
    """A waiting workflow can only be cancelled by its own cleanup, so somebody must run it."""
    running = run_shop()
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1")
    until((here / "mark").exists)
    running.process.kill()
    running.process.wait()
    text = perdure("workflow", "show", "s-1").stdout
    assert "▸ stall() → was in flight; it runs again when the workflow goes on" in text
    assert "is gone, and no executor of app 'shop' is alive" in text
    assert "killed" in perdure("executor", "list").stdout
    said = perdure("workflow", "cancel", "s-1", code=5).stdout
    assert "s-1: the cancel is recorded, not done yet: workflow s-1 does not move: no executor" in said
    run_shop()
    until(lambda: "cancelled" in perdure("workflow", "list", "--status", "closed").stdout)
    text = perdure("workflow", "show", "s-1").stdout
    assert "survived  the death of an executor" in text


def test_a_step_that_is_not_run_again_is_shown_as_that(
    perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path
) -> None:
    running = run_shop()
    perdure("workflow", "start", "risky", f'"{here}/mark"', "--id", "r-1")
    until((here / "mark").exists)
    running.process.kill()
    running.process.wait()
    text = perdure("workflow", "show", "r-1").stdout
    assert "▸ dare() → was in flight; not run again: raises StepOutcomeUnknown" in text
    assert "runs again" not in text
    assert perdure.json("workflow", "show", "r-1")["workflow"]["timeline"][-1]["at_most_once"] is True
    run_shop()
    assert "StepOutcomeUnknown" in perdure("workflow", "result", "r-1", code=1).stderr


def test_with_a_live_executor(perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path) -> None:
    run_shop()
    perdure("workflow", "start", "checkout", '"a"', "--id", "o-1")
    assert json.loads(perdure("workflow", "result", "o-1").stdout)["charge"] == "charge-a"
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: "running" in perdure("workflow", "list").stdout)
    assert perdure("workflow", "cancel", "p-1").stdout == "p-1: cancelled\n"
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1")
    until((here / "mark").exists)
    assert "▸ stall() → in flight" in perdure("workflow", "show", "s-1").stdout
    timeline = perdure.json("workflow", "show", "s-1")["workflow"]["timeline"]
    assert timeline[-1]["outcome"] == "in flight"
    perdure("workflow", "start", "delivery", '"a"', "--id", "d-1")
    until(lambda: "attempt 1" in perdure("workflow", "show", "d-1").stdout)
    assert "▸ deliver(), attempt 2 → in flight, or waits for its next try" in perdure("workflow", "show", "d-1").stdout
    first, second = perdure.json("workflow", "show", "d-1")["workflow"]["timeline"]
    assert second["begin"] == first["end"]
    said = perdure("workflow", "cancel", "s-1", "--timeout", 0.1, code=5).stdout
    assert "its executor stops it when the step under way has ended; where that hangs, to end the workflow" in said


def test_what_waits_is_told(perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.perdure]\ngrace = 0.05\n")
    run_shop()
    perdure("workflow", "start", "parcel", "--id", "p-1")
    until(lambda: "waiting" in perdure("workflow", "list").stdout)
    text = perdure("workflow", "show", "p-1").stdout
    assert "waits     for a message on 'shipped'\n" in text
    assert "last on" in text
    assert "── waits for a message on 'shipped', for" in text
    assert "p-1: cancelled" in perdure("workflow", "cancel", "p-1", "--reason", "no more").stdout
    assert "✓ cancel (cancelled) no more" in perdure("workflow", "show", "p-1").stdout


def test_a_restart_takes_over_at_once(perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path) -> None:
    running = run_shop()
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1")
    until((here / "mark").exists)
    running.process.kill()  # and not reaped: it stays a zombie, which is as dead as can be
    until(lambda: "killed" in perdure("executor", "list").stdout)
    run_shop()
    assert perdure("workflow", "result", "s-1", "--timeout", 4).stdout == '"went on"\n'  # the lease is 5 seconds
    lines = perdure("workflow", "show", "s-1").stdout.splitlines()
    stall = [line for line in lines if "stall(" in line]
    assert len(stall) == 2
    assert "): was in flight" in stall[0]
    assert any("taken over by" in line for line in lines)
    assert sum("charge(" in line and "✓" in line for line in lines) == 1
