"""``perdure workflow resume|restart|fork|pause|unpause`` on a database whose executors come and go."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.model.states import Reason, Status
from tests.cli.conftest import Cli, Running, play, until
from tests.cli.test_workflows import hold, store_of


async def shop_day(app: Any, _shop: Any) -> None:
    """One completed, and one that waits for a message and is handed back."""

    def workflow(name: str, id: str) -> Any:
        return app.client.workflow(name, returns=object).options(id=id)

    await (await workflow("checkout", "o-1").start("a", 1999)).result()
    await workflow("parcel", "p-1").start()


@pytest.fixture
def day(url: str) -> str:
    play(url, shop_day)
    return url


def status(url: str, id: str) -> Status:
    found: Status = store_of(url, lambda store: store.rows([id]))[id].status
    return found


def test_held_work_is_queued_again_and_show_tells_who_and_why(perdure: Cli, day: str) -> None:
    hold(day, "p-1", Reason.RECOVERY_LIMIT, "11 executors died")
    assert "perdure workflow resume p-1" in perdure("workflow", "show", "p-1").stdout
    result = perdure("workflow", "resume", "p-1", "--reason", "more memory now")
    assert result.stdout == "p-1: it is queued and goes on\n"
    assert "no executor of app 'shop' is alive" in result.stderr
    assert status(day, "p-1") is Status.QUEUED
    shown = perdure("workflow", "show", "p-1").stdout
    assert "decision resume by " in shown
    assert ": more memory now" in shown
    [order] = [r for r in perdure.json("workflow", "history", "p-1")["records"] if r["kind"] == "decision"]
    assert order["name"] == "resume"
    assert order["shown"].endswith(": more memory now")


def test_a_cancelled_workflow_goes_on(perdure: Cli, day: str, run_shop: Callable[..., Running]) -> None:
    run_shop("shop:app", "--database", day)
    perdure("workflow", "cancel", "p-1")
    assert perdure.json("workflow", "resume", "p-1")["answers"] == [
        {"id": "p-1", "status": "queued", "new": "p-1", "answer": "it is queued and goes on"}
    ]
    perdure("workflow", "send", "p-1", "true", "--topic", "shipped")
    assert json.loads(perdure("workflow", "result", "p-1", "--timeout", 20).stdout) is True
    shown = perdure("workflow", "show", "p-1").stdout
    assert "run       2 of 2" in shown
    assert "0 records kept of run 1 of p-1" in shown


def test_what_is_final_and_what_is_unknown_say_what_to_do(perdure: Cli, day: str) -> None:
    refused = perdure("workflow", "resume", "o-1", code=1).stdout
    assert "is completed, which is final" in refused
    assert "perdure workflow restart o-1" in refused
    for verb in ("resume", "restart", "fork"):
        assert "has no workflow 'nobody'" in perdure("workflow", verb, "nobody", code=3).stdout


def test_several_are_a_plan_until_it_is_said_twice(perdure: Cli, day: str) -> None:
    hold(day, "p-1", Reason.POLICY, "")
    planned = perdure("workflow", "resume", "p-1", "o-1", "nobody", code=3)
    assert planned.stdout.splitlines()[:2] == ["p-1: is held; would resume", "o-1: is completed; would resume"]
    assert "nothing was changed: to resume 3 workflows, add --yes and --reason TEXT" in planned.stderr
    perdure("workflow", "resume", "p-1", "o-1", "--yes", code=1)
    assert status(day, "p-1") is Status.HELD, "no reason was given"
    done = perdure.json("workflow", "resume", "p-1", "o-1", "--yes", "--reason", "all of them", code=1)
    assert [(a["id"], a["status"]) for a in done["answers"]] == [("p-1", "queued"), ("o-1", None)]
    assert status(day, "p-1") is Status.QUEUED
    assert perdure("workflow", "resume", "p-1", "p-1").stdout.count("\n") == 1, "the same id twice is one"


def test_restart_prints_the_new_id(perdure: Cli, day: str) -> None:
    assert perdure("workflow", "restart", "o-1", "-o", "ids").stdout == "o-1-2\n"
    assert perdure("workflow", "restart", "o-1", "-o", "ids").stdout == "o-1-2\n", "twice is once"
    # nothing was made: the next command of a pipe must not act on a workflow "None"
    assert perdure("workflow", "restart", "o-1", "p-1", "-o", "ids", code=1).stdout == ""
    assert perdure("workflow", "fork", "o-1", "--from", "zz", "-o", "ids", code=3).stdout == ""
    assert perdure("workflow", "restart", "o-1", "--again").stdout.endswith("begun anew as o-1-3\n")
    named = ("workflow", "restart", "p-1", "--id", "q-1", "--terminate", "--reason", "stuck")
    assert perdure(*named).stdout.endswith("begun anew as q-1, and terminated\n")
    assert perdure(*named).stdout.endswith("already so: begun anew as q-1, which is queued\n")
    assert status(day, "p-1") is Status.TERMINATED
    assert "because   restarted by " in perdure("workflow", "show", "p-1").stdout
    perdure("workflow", "restart", "o-1", "p-1", "--id", "x", code=2)


def test_fork_from_a_step(perdure: Cli, day: str, run_shop: Callable[..., Running]) -> None:
    forked = perdure.json("workflow", "fork", "o-1", "--from", "charge", "--id", "f-1", "--input", '["b", 7]')
    assert forked["answers"][0]["new"] == "f-1"
    unknown = perdure("workflow", "fork", "o-1", "--from", "ship", code=3).stdout
    assert "has no step 'ship'; it has: charge (path 1, #" in unknown
    assert "is not a JSON array" in perdure("workflow", "fork", "o-1", "--input", "{}", code=2).stderr
    assert "is taken" in perdure("workflow", "fork", "o-1", "--id", "p-1", code=1).stdout
    run_shop("shop:app", "--database", day)
    result = json.loads(perdure("workflow", "result", "f-1", "--timeout", 20).stdout)
    assert result == {"charge": "charge-b", "cents": 7}
    records = perdure.json("workflow", "history", "o-1")["records"]
    kept = perdure.json("workflow", "fork", "o-1", "--id", "f-2")
    assert kept["answers"][0]["answer"] == "forked as f-2"
    perdure("workflow", "result", "f-2", "--timeout", 20)
    copied = perdure.json("workflow", "history", "f-2")["records"]
    assert copied[: len(records)] == records
    assert copied[len(records)]["kind"] == "cut"


def test_a_running_one_is_left_alone(perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path) -> None:
    shop = run_shop("shop:app", "--database", url)
    perdure("workflow", "start", "parcel", "--id", "p-9")
    until(lambda: status(url, "p-9") is Status.RUNNING)
    said = perdure("workflow", "resume", "p-9")
    assert (said.stdout, said.stderr) == ("p-9: it goes on already: running\n", "")
    shop.stop(signal.SIGKILL)
    assert "no executor of app 'shop' is alive" in perdure("workflow", "resume", "p-9").stderr


def test_a_pause_is_shown_with_who_and_why(perdure: Cli, day: str, run_shop: Callable[..., Running]) -> None:
    said = perdure("workflow", "pause", "p-1", "--because", "the van is out").stdout
    assert said.startswith("p-1: paused: by ")
    assert said.endswith(": the van is out\n")
    listed = perdure.json("workflow", "list", "--status", "held")["workflows"]
    assert [(one["id"], one["reason"]) for one in listed] == [("p-1", "paused")]
    assert "paused: by" in perdure("workflow", "list").stdout
    shown = perdure("workflow", "show", "p-1").stdout
    assert "decision pause by " in shown
    assert "perdure workflow unpause p-1" in shown
    perdure("workflow", "send", "p-1", "true", "--topic", "shipped")
    run_shop("shop:app", "--database", day)
    perdure("workflow", "result", "p-1", "--timeout", "0.5", code=5)
    assert perdure("workflow", "unpause", "p-1").stdout == "p-1: it goes on: queued\n"
    assert json.loads(perdure("workflow", "result", "p-1", "--timeout", 20).stdout) is True
    assert perdure("workflow", "unpause", "p-1").stdout == "p-1: it is not paused: completed\n"
    assert perdure("workflow", "pause", "p-1").stdout == "p-1: it is over: completed\n"
    assert "has no workflow 'nobody'" in perdure("workflow", "pause", "nobody", code=3).stdout


def test_a_pause_waits_for_the_step_in_flight_and_says_so(
    perdure: Cli, url: str, run_shop: Callable[..., Running], here: Path
) -> None:
    run_shop("shop:app", "--database", url)
    perdure("workflow", "start", "stalled", f'"{here}/mark"', "--id", "s-1")
    until((here / "mark").exists)
    said = perdure("workflow", "pause", "s-1", "--timeout", "0.2", code=5).stdout
    assert "the pause is recorded, not done yet: its executor stops it when the steps under way have ended" in said
    assert "about to pause: by" in perdure("workflow", "list").stdout
    assert perdure("workflow", "unpause", "s-1").stdout == "s-1: it goes on: running\n"


def test_several_pauses_are_a_plan_first(perdure: Cli, day: str) -> None:
    said = perdure("workflow", "pause", "p-1", "o-1", code=1)
    assert "to pause 2 workflows, add --yes and --reason TEXT" in said.stderr
    assert status(day, "p-1") is not Status.HELD
    perdure("workflow", "pause", "p-1", "o-1", "--yes", "--because", "inventory")
    assert status(day, "p-1") is Status.HELD
