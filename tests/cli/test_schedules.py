"""``perdure schedule …``: what an operator sees and changes, with an app at work and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli, Running, play, until


def made(perdure: Cli, url: str) -> None:
    async def nothing(app: Any, shop: Any) -> None: ...

    play(url, nothing)
    perdure(
        "schedule", "create", "nightly", "checkout", "--cron", "0 2 * * *", "--tz", "Europe/Berlin", "--app", "shop"
    )


def test_created_shown_changed_and_deleted(perdure: Cli, url: str) -> None:
    made(perdure, url)
    (one,) = perdure.json("schedule", "list")["schedules"]
    assert (one["name"], one["cron"], one["tz"], one["catch_up"]) == ("nightly", "0 2 * * *", "Europe/Berlin", 100)
    listed = perdure("schedule", "list")
    assert "nightly" in listed.stdout
    assert "nothing fires: no executor of app 'shop' is alive" in listed.stderr
    perdure("schedule", "create", "nightly", "checkout", "--cron", "0 2 * * *", "--tz", "Europe/Berlin")
    again = perdure("schedule", "create", "nightly", "checkout", "--cron", "0 3 * * *", code=1)
    assert "there is a schedule 'nightly' already" in again.stderr
    text = perdure("schedule", "set", "nightly", "--every", "90m", "--tz", "UTC", "--catch-up", "2d", "--missed", "all")
    assert "checkout, every 90 m 0 s in UTC" in text.stdout
    shown = perdure.json("schedule", "show", "nightly")["schedule"]
    assert (shown["every"], shown["catch_up_seconds"], shown["missed"]) == (5400.0, 172_800.0, "all")
    assert len([line for line in text.stdout.splitlines() if line.startswith("times to come:")]) == 1
    assert "paused: stocktaking" in perdure("schedule", "pause", "nightly", "--reason", "stocktaking").stdout
    assert "next: 2" in perdure("schedule", "resume", "nightly").stdout
    assert "nothing that the code declares" in perdure("schedule", "reset", "nightly", code=1).stderr
    assert perdure("schedule", "delete", "nightly").stdout == "deleted nightly\n"
    missing = perdure("schedule", "show", "nightly", "--app", "shop", code=3)
    assert "no app 'shop'" in missing.stderr or "has no schedule 'nightly'; it has: none" in missing.stderr


def test_what_cannot_be_is_refused(perdure: Cli, url: str) -> None:
    made(perdure, url)
    for words, says in (
        (("--cron", "0 25 * * *"), "hour '25' cannot be"),
        (("--every", "soon"), "--every 'soon' is no duration; give 30s"),
        (("--tz", "Mars"), "tz='Mars' is no time zone"),
        ((), "nothing to change was given"),
    ):
        assert says in perdure("schedule", "set", "nightly", *words, code=2).stderr
    assert "neither was given" in perdure("schedule", "create", "x", "checkout", code=2).stderr
    assert "is no time; give" in perdure("schedule", "backfill", "nightly", "--from", "x", "--to", "y", code=2).stderr


def test_triggered_and_backfilled(perdure: Cli, url: str) -> None:
    made(perdure, url)
    perdure("schedule", "pause", "nightly")
    done = perdure("schedule", "trigger", "nightly")
    assert done.stdout.startswith("nightly@2")
    assert "it is queued; no executor" in done.stderr
    since = (datetime.now(UTC) - timedelta(days=3)).date()
    span = ("--from", f"{since}T02:00", "--to", f"{since + timedelta(days=1)}T02:00")
    planned = perdure("schedule", "backfill", "nightly", *span, code=1)
    assert planned.stdout.splitlines()[0] == "would start 2 workflows"
    assert "nothing was started: say --yes" in planned.stderr
    ids = perdure("schedule", "backfill", "nightly", *span, "--yes", "-o", "ids").stdout.split()
    assert len(ids) == 2
    assert perdure("schedule", "backfill", "nightly", *span, "--yes").stdout == "started or queued 0 workflows\n"
    rows = perdure.json("workflow", "list", "--type", "checkout")["workflows"]
    assert {row["id"] for row in rows} == {*ids, done.stdout.strip()}
    firings = perdure.json("schedule", "show", "nightly")["schedule"]["firings"]
    assert [(one["state"], one["detail"]) for one in firings] == [
        ("started", "triggered by hand"), ("started", "backfilled"), ("started", "backfilled"),
    ]  # fmt: skip


def test_a_running_app_fires_what_was_created_beside_it(
    perdure: Cli, here: Path, run_shop: Callable[..., Running]
) -> None:
    run_shop()
    perdure("schedule", "create", "tick", "parcel", "--every", "1s", "--overlap", "queue")
    until(lambda: perdure.json("workflow", "list", "--type", "parcel", "--status", "open")["workflows"])
    perdure("schedule", "pause", "tick")
    shown = json.loads(perdure("schedule", "show", "tick", "-o", "json").stdout)["schedule"]
    assert shown["firings"][-1]["state"] == "started"
    assert shown["last"] == shown["firings"][-1]["workflow"]
