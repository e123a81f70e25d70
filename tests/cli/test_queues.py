"""``perdure queue …``: what is shown of queues, and limits changed from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import App, Rate
from tests.cli.conftest import Cli


@pytest.fixture
def filled(here: Path) -> None:
    """A database with two queues, known and unknown, and work in their lines."""
    (here / ".perdure").mkdir()
    app = App("shop", database=f"sqlite:///{here}/.perdure/shop.db")
    app.queue("emails", concurrency=10, rate=Rate(100, per=60))

    @app.workflow(name="mail", queue="emails")
    async def mail(n: int) -> int:
        return n

    async def fill() -> None:
        async with app:
            pass
        async with app.connect():
            await mail.start_many([1, 2, 3])
            await mail.options(delay=3600).start(4)
            await mail.options(queue="adhoc", partition="p").start(5)

    asyncio.run(fill())


def shown(perdure: Cli, name: str) -> Any:
    return next(q for q in perdure.json("queue", "list")["queues"] if q["name"] == name)


def test_what_is_in_line_and_the_limits_are_shown(perdure: Cli, filled: None) -> None:
    emails = shown(perdure, "emails")
    assert (emails["in_line"], emails["delayed"], emails["in_progress"]) == (3, 1, 0)
    assert emails["limits"] == {"concurrency": 10, "rate_limit": 100, "rate_period": 60_000_000}
    assert shown(perdure, "adhoc")["declared"] is None
    text = perdure("queue", "list").stdout
    assert "concurrency 10, rate 100/60s" in text
    assert "no limits" in text


def test_limits_are_changed_and_reset(perdure: Cli, filled: None) -> None:
    said = perdure("queue", "set", "emails", "--concurrency", "3", "--rate", "none", "--partition-rate", "5/1m")
    assert said.stdout == "queue emails now has concurrency 3*, rate none*, partition rate 5/60s*\n"
    assert "3 in line; no executor of app 'shop' is alive" in said.stderr
    assert shown(perdure, "emails")["live"]["concurrency"] == 3
    assert perdure("queue", "set", "emails", "--reset").stdout == "queue emails now has concurrency 10, rate 100/60s\n"
    assert shown(perdure, "emails")["live"] == {}


def test_the_limit_of_a_declared_queue_is_kept_for_who_starts_here(perdure: Cli, filled: None, here: Path) -> None:
    for n in range(6):
        perdure("workflow", "start", "mail", str(n + 10), "--id", f"m-{n}")
    app = App("shop", database=f"sqlite:///{here}/.perdure/shop.db")
    app.queue("emails", concurrency=2)
    inside: list[int] = []
    most: list[int] = []

    @app.step(name="send")
    async def send(n: int) -> int:
        if n == 5:
            return n  # of another queue
        inside.append(n)
        most.append(len(inside))
        await asyncio.sleep(0.01)  # waits: long enough for a third to come, if it may
        inside.remove(n)
        return n

    @app.workflow(name="mail", queue="emails")
    async def mail(n: int) -> int:
        return await send(n)

    async def work() -> None:
        async with app:
            for n in range(6):
                assert await mail.handle(f"m-{n}").result() == n + 10

    asyncio.run(work())
    assert max(most) == 2


def test_a_start_that_another_answers_says_so(perdure: Cli, filled: None) -> None:
    start = ("workflow", "start", "mail", "--queue", "emails", "--dedup")
    first = perdure(*start, "k", 7, "--id", "m-7")
    assert "it is queued; no executor of app 'shop' is alive" in first.stderr
    again = perdure(*start, "k", 8)
    assert again.stdout == "m-7\n"
    assert "workflow m-7 was there already (queued); this start is answered by it" in again.stderr
    late = perdure(*start, "d", 1, "--debounce", "1h").stdout
    anew = perdure(*start, "d", 2, "--debounce", "1h")
    assert anew.stdout == late
    assert "was there already; it waits anew, with this input, until 2" in anew.stderr
    other = perdure("workflow", "start", "other", "--queue", "emails", "--dedup", "k", code=1)
    assert "--dedup k already: 'm-7', a mail (queued), and this call is one of other" in other.stderr
    assert "or say --on-conflict replace to cancel that one" in other.stderr
    failed = perdure(*start, "k", 8, "--on-conflict", "fail", code=1)
    assert "--on-conflict fail asked for this error. Leave it out to attach to that one" in failed.stderr
    assert "on_conflict=" not in other.stderr + failed.stderr
    both = perdure(*start, "d", 1, "--debounce", "1h", "--on-conflict", "replace", code=2)
    assert "debounce= and on_conflict='replace' were given for 'mail'" in both.stderr


def test_a_start_of_a_taken_id_is_told_in_the_words_of_the_command_line(perdure: Cli, filled: None) -> None:
    start = ("workflow", "start", "mail", "--queue", "emails", "--id", "m-7")
    perdure(*start, 7)
    other = perdure(*start, 8, code=1)
    assert "choose another id, or --on-conflict replace to cancel that one and run this" in other.stderr
    failed = perdure(*start, 7, "--on-conflict", "fail", code=1)
    assert "--on-conflict fail asked for this error" in failed.stderr
    assert "on_conflict=" not in other.stderr + failed.stderr
    perdure("workflow", "cancel", "m-7")
    [told] = perdure(*start, 7).stderr.splitlines()
    assert "m-7 was there already (cancelled); this start is answered by it, which ended at 2" in told
    assert told.endswith("Z. To run it again: another --id, or --on-conflict replace")


def test_pause_and_resume(perdure: Cli, filled: None) -> None:
    assert perdure("queue", "pause", "emails").stdout == "queue emails is paused\n"
    assert shown(perdure, "emails")["paused"] is True
    assert perdure("queue", "resume", "emails", "-o", "ids").stdout == "emails\n"
    assert shown(perdure, "emails")["paused"] is False


def test_mistakes_are_told(perdure: Cli, filled: None) -> None:
    assert "no queue is called 'email'; there are: adhoc, emails" in perdure("queue", "pause", "email", code=3).stderr
    assert "'0' is no limit" in perdure("queue", "set", "emails", "--concurrency", "0", code=2).stderr
    assert "'5' is no rate: such as 100/60s" in perdure("queue", "set", "emails", "--rate", "5", code=2).stderr
    digits = "9" * 5000  # Python refuses to make a number of it
    for no_rate in (f"{digits}/1s", f"5/{digits}", "5/40000d", "5/0.0000001s"):
        told = perdure("queue", "set", "emails", "--rate", no_rate, code=2).stderr
        assert "is no rate: such as 100/60s" in told
        assert len(told) < 500
    assert "nothing to change" in perdure("queue", "set", "emails", code=2).stderr
