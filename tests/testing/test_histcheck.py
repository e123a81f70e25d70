"""The checker finds nothing in a good day, and each invariant's breach when the evidence of it is spoiled."""

from __future__ import annotations

import asyncio
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from perdure.model.records import Kind
from perdure.model.states import CODE, Status
from perdure.testing.histcheck import INVARIANTS, Evidence, check, install_audit, read_audit
from tests.postgres import Cluster
from tests.testing.histcheck_support import Shop

# What an ordinary day has no case of: deaths, moves, decisions.
SCHEDULES = {"I41", "I42", "I44", "I44b"}  # test_histcheck_schedules.py
ORDERS = {"I50", "I54", "I54b", "I55", "I56", "I61", "I62", "I64", "I12b", "I12c"}  # test_histcheck_orders.py
NOT_SEEN = {"I9", "I24", "I47", "I52", "I57", "I59", "I59b", "I68", "I72", *SCHEDULES, *ORDERS}
ANOTHER = "f" * 32
QUEUE = "insert into perdure.queue (app, name, changed, revision) values ('shop', $1, 0, 1)"
CLOCK = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"

Lines = list[dict[str, Any]]


class Streams:
    """The four streams of a day, to be spoiled."""

    def __init__(self, audit: Lines, ledger: Lines, history: Lines, faults: Lines) -> None:
        self.audit, self.ledger, self.history, self.faults = audit, ledger, history, faults

    def changes(self, table: str, **want: Any) -> Lines:
        return [
            line
            for line in self.audit
            if line["table"] == table and all((line | line["row"]).get(key) == value for key, value in want.items())
        ]

    def append(self, like: dict[str, Any], op: str = "", at: int = 0, **changed: Any) -> None:
        """One more line of the audit, in a commit of its own, like another."""
        last = self.audit[-1]
        line = copy.deepcopy(like)
        line |= {"n": last["n"] + 1, "tx": last["tx"] + 1, "at": at or last["at"] + 1, "op": op or like["op"]}
        line["row"] |= changed
        self.audit.append(line)

    def last(self, id: str) -> dict[str, Any]:
        return self.changes("workflow", id=id)[-1]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    folder = tmp_path_factory.mktemp("day")
    shop = Shop(f"sqlite:///{folder}/shop.db", folder)
    asyncio.run(shop.day())
    shop.faults.heal()
    return asyncio.run(shop.streams())  # type: ignore[return-value]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


async def test_a_day_in_peace_breaks_no_invariant(database: str, tmp_path: Path) -> None:
    shop = Shop(database, tmp_path)
    await shop.day()
    shop.faults.heal()
    verdict = check(await shop.evidence())
    assert verdict.good, str(verdict)
    assert {number for number, cases in verdict.looked.items() if not cases} <= NOT_SEEN


SPOILS: dict[str, Callable[[Streams], None]] = {}


def breaks(number: str) -> Callable[[Callable[[Streams], None]], Callable[[Streams], None]]:
    def register(spoil: Callable[[Streams], None]) -> Callable[[Streams], None]:
        SPOILS[f"{number} {spoil.__name__}"] = spoil
        return spoil

    return register


@breaks("I1")
def a_record_is_changed(s: Streams) -> None:
    s.append(s.changes("history", kind=Kind.STEP)[0], "update", data="0")


@breaks("I1")
def an_output_is_replaced(s: Streams) -> None:
    s.append(s.changes("payload", outcome=1)[0], "update", output="0")


@breaks("I2")
def a_stranger_writes(s: Streams) -> None:
    s.changes("history", id="order-1")[-1]["row"]["nonce"] = ANOTHER


@breaks("I3")
def an_acknowledged_start_is_not_there(s: Streams) -> None:
    s.audit[:] = [line for line in s.audit if line["row"].get("id") != "order-2"]


@breaks("I3")
def a_workflow_hangs(s: Streams) -> None:
    id = "order-3"
    s.append(s.changes("workflow", id=id, status=CODE[Status.RUNNING])[0], "update")
    s.append(s.audit[0], "update", at=s.audit[-1]["at"] + 60_000_000)


@breaks("I4")
def a_start_wins_twice(s: Streams) -> None:
    s.append(s.changes("workflow", id="order-1", op="insert")[0], "insert")


@breaks("I5")
def the_dead_rise(s: Streams) -> None:
    s.append(s.changes("workflow", id="order-1", status=CODE[Status.RUNNING])[0], "update")


@breaks("I6")
def a_path_is_two_calls(s: Streams) -> None:
    s.changes("history", kind=Kind.ATTEMPT)[0]["row"]["name"] = "another"


@breaks("I7")
def a_record_is_missing(s: Streams) -> None:
    s.audit.remove(s.changes("history", id="order-1", seq=2)[0])


@breaks("I8")
def a_reader_gets_another_result(s: Streams) -> None:
    next(line for line in s.history if line["op"] == "result" and line["type"] == "ok")["value"] = 99


@breaks("I9")
def a_claim_counts_as_a_death(s: Streams) -> None:
    s.last("order-1")["row"]["attempts"] = 1


@breaks("I10")
def another_life_calls_otherwise(s: Streams) -> None:
    s.ledger.append(s.ledger[0] | {"args": "otherwise", "attempt": 2})


@breaks("I11")
def a_step_runs_after_its_record(s: Streams) -> None:
    line = next(line for line in s.ledger if line["name"] == "ship")
    s.ledger.append(line | {"at": s.audit[-1]["at"] + 10_000})


@breaks("I11")
def a_step_runs_too_often(s: Streams) -> None:
    s.ledger += [s.ledger[0]] * 3


@breaks("I12")
def an_attempt_is_not_recorded(s: Streams) -> None:
    s.audit.remove(s.changes("history", kind=Kind.ATTEMPT)[0])


@breaks("I13")
def once_is_twice(s: Streams) -> None:
    s.ledger.append(next(line for line in s.ledger if line["once"]))


@breaks("I15")
def a_key_is_another(s: Streams) -> None:
    s.ledger.append(s.ledger[0] | {"key": "another"})


@breaks("I15")
def two_steps_have_one_key(s: Streams) -> None:
    s.ledger.append(s.ledger[0] | {"path": "77"})


@breaks("I20")
def a_child_has_no_record(s: Streams) -> None:
    s.audit.remove(s.changes("history", kind=Kind.CHILD)[0])


@breaks("I20")
def a_call_makes_two_children(s: Streams) -> None:
    child = next(line for line in s.changes("workflow", op="insert") if line["row"]["parent"])
    s.append(child, "insert", id="a second one")


@breaks("I21")
def a_parent_saw_another_result(s: Streams) -> None:
    s.changes("history", kind=Kind.RESULT)[0]["row"]["data"] = "77"


@breaks("I22")
def a_child_lives_on(s: Streams) -> None:
    child = next(
        line for line in s.changes("workflow", op="insert") if line["row"]["on_parent_close"] == "cancel"
        and line["row"]["parent"]
    )  # fmt: skip
    s.append(child, "update")


@breaks("I23")
def a_message_is_received_twice(s: Streams) -> None:
    s.append(s.changes("message", op="update")[0], "update", taken_seq=99)


@breaks("I23")
def an_acknowledged_message_is_not_there(s: Streams) -> None:
    s.audit[:] = [line for line in s.audit if line["table"] != "message"]


@breaks("I24")
def a_send_leaves_no_message(s: Streams) -> None:
    s.changes("message", op="insert")  # those of clients remain
    record = s.changes("history", kind=Kind.EVENT)[0]["row"]
    record |= {"kind": Kind.SEND, "name": "nobody note"}


@breaks("I25")
def the_later_comes_first(s: Streams) -> None:
    first = s.changes("message", op="insert")[0]
    earlier = copy.deepcopy(first)
    earlier["row"] |= {"mid": "0" * 16 + first["row"]["mid"][16:], "key": None}
    s.audit.insert(s.audit.index(first), earlier)


@breaks("I26")
def a_message_is_taken_without_a_record(s: Streams) -> None:
    s.audit.remove(s.changes("history", kind=Kind.RECV)[0])


@breaks("I26")
def a_receipt_takes_nothing(s: Streams) -> None:
    s.audit.remove(s.changes("message", op="update")[0])


@breaks("I27")
def a_message_to_nobody_is_acknowledged(s: Streams) -> None:
    for line in [line for line in s.history if line["op"] == "send"][:2]:
        line["w"] = "nobody"


@breaks("I30")
def a_value_is_appended_twice(s: Streams) -> None:
    value = s.changes("stream_value", id="order-1", name="story")[-1]
    s.append(value, place=value["row"]["place"] + 1)


@breaks("I30")
def a_value_is_changed(s: Streams) -> None:
    s.append(s.changes("stream_value", id="order-1", name="story")[0], "update", data='"other"')


@breaks("I30")
def a_step_writes_after_its_outcome(s: Streams) -> None:
    value = s.changes("stream_value", id="order-1", name="story", path="1")[-1]
    s.append(value, place=9, n=3)


@breaks("I30")
def a_bodys_value_is_missing(s: Streams) -> None:
    lost = s.changes("stream_value", id="order-1", name="story", path="3")[0]
    s.audit.remove(lost)


@breaks("I30")
def a_stranger_writes_to_a_stream(s: Streams) -> None:
    s.changes("stream", id="order-1", name="story")[-1]["row"]["nonce"] = ANOTHER


@breaks("I31")
def an_offset_is_missing(s: Streams) -> None:
    s.audit.remove(s.changes("stream_value", id="order-2", name="story", place=1)[0])


@breaks("I31")
def something_follows_the_close(s: Streams) -> None:
    value = s.changes("stream_value", id="order-1", name="story")[-1]
    s.append(value, place=value["row"]["place"] + 1, path="99")


@breaks("I31")
def a_reader_sees_what_is_not_there(s: Streams) -> None:
    next(line for line in s.history if line["op"] == "read_stream" and line["type"] == "ok")["value"][0] = "other"


@breaks("I28")
def an_event_never_had_that_value(s: Streams) -> None:
    next(line for line in s.history if line["op"] == "get_event" and line["type"] == "ok")["value"] = "another"


@breaks("I32")
def a_sleep_is_short(s: Streams) -> None:
    line = next(line for line in s.ledger if line["name"] == "ship")
    line["args"]["slept"][2] = 10**9


@breaks("I45")
def a_cancel_was_not(s: Streams) -> None:
    next(line for line in s.history if line["op"] == "cancel" and line["type"] == "ok")["value"] = "completed"


@breaks("I45")
def a_record_comes_after_the_end(s: Streams) -> None:
    record = s.changes("history", id="order-1")[-1]
    s.append(record, seq=record["row"]["seq"] + 1, path="88")


@breaks("I46")
def a_step_begins_after_the_end(s: Streams) -> None:
    s.ledger.append(s.ledger[0] | {"path": "99", "at": s.audit[-1]["at"] + 10_000, "key": "99"})


@breaks("I47")
def a_deadline_is_put_off(s: Streams) -> None:
    for line, deadline in zip(s.changes("workflow", id="order-1")[-2:], (10, 20), strict=True):
        line["row"]["deadline"] = deadline


@breaks("I49")
def another_version_runs_it(s: Streams) -> None:
    for line in s.changes("workflow", id="order-1"):
        line["row"]["version"] = "another"


@breaks("I52")
def a_move_keeps_the_token(s: Streams) -> None:
    running = s.changes("workflow", id="order-1", status=CODE[Status.RUNNING])[0]
    running["row"]["version"] = "old"
    s.append(running, "update", version="new")


@breaks("I57")
def the_dead_hold_work(s: Streams) -> None:
    who = s.changes("incarnation", op="insert")[0]
    s.append(s.changes("workflow", id="order-1", status=CODE[Status.RUNNING])[0], "update", owner=ANOTHER, version="")
    s.append(who, "insert", id="e" * 32, version="", state="alive", at=s.audit[-1]["at"] + 60_000_000)


@breaks("I58")
def work_is_taken_from_the_living(s: Streams) -> None:
    at = s.audit.index(s.changes("workflow", id="order-1", status=CODE[Status.RUNNING])[0])
    taken = copy.deepcopy(s.audit[at])
    taken["op"] = "update"
    taken["row"] |= {"owner": ANOTHER, "claim": ANOTHER}
    s.audit.insert(at + 1, taken)


@breaks("I58")
def death_is_not_final(s: Streams) -> None:
    who = s.changes("incarnation", op="insert")[0]
    s.append(who, "insert", id=ANOTHER, state="dead", lease_until=0)
    s.append(who, "update", id=ANOTHER, state="alive")


@breaks("I58b")
def two_processes_are_one(s: Streams) -> None:
    s.changes("workflow", id="order-1", status=CODE[Status.RUNNING])[0]["row"]["claim"] = ANOTHER


@breaks("I59")
def a_decision_is_of_nobody(s: Streams) -> None:
    row = {"app": "shop", "id": "order-1", "run": 1, "claim": ANOTHER}
    s.append({"n": 0, "tx": 0, "at": 0, "table": "decision", "op": "insert", "row": row})


@breaks("I59b")
def a_decision_is_only_said(s: Streams) -> None:
    row = {"app": "shop", "id": "order-1", "run": 1, "claim": ANOTHER, "decision": "hold", "policy": "mine"}
    s.append({"n": 0, "tx": 0, "at": 0, "table": "decision", "op": "update", "row": row})


@breaks("I34")
def more_are_in_progress_than_may_be(s: Streams) -> None:
    s.changes("queue", name="gate", op="update")[-1]["row"]["concurrency"] = 0


@breaks("I35")
def more_are_on_an_executor_than_may_be(s: Streams) -> None:
    row = s.changes("queue", name="gate", op="update")[-1]
    row["row"]["worker_concurrency"] = 0
    row["at"] -= 10_000_000


@breaks("I36")
def more_began_than_the_rate_allows(s: Streams) -> None:
    for line in s.changes("queue", name="gate", op="update"):
        line["row"] |= {"rate_limit": 1, "rate_period": 3_600_000_000}


@breaks("I37")
def more_of_a_partition_began(s: Streams) -> None:
    for line in s.changes("queue", name="gate", op="update"):
        line["row"] |= {"partition_rate_limit": 1, "partition_rate_period": 3_600_000_000}


@breaks("I38")
def a_key_is_given_away(s: Streams) -> None:
    key = s.changes("dedup")[0]
    before = s.changes("workflow", id=key["row"]["id"], status=CODE[Status.QUEUED])[0]
    s.append(before, "update")
    s.append(key, "update", id="order-1")


@breaks("I39")
def one_is_passed_over(s: Streams) -> None:
    lined = [line for line in s.changes("workflow", op="insert") if line["row"]["lane"] is not None]
    first, second = lined[:2]
    first["at"] -= 60_000_000
    second["row"]["until"] -= 60_000_000
    second["at"] -= 60_000_000
    for line in s.changes("workflow", id=second["row"]["id"], status=CODE[Status.RUNNING]):
        line["at"] += 60_000_000


@breaks("I67")
def trouble_is_called_failure(s: Streams) -> None:
    next(line for line in s.history if line["type"] == "ok").update(type="fail", error="LostAnswer")


@breaks("I68")
def trouble_fails_a_workflow(s: Streams) -> None:
    s.changes("payload", outcome=1)[-1]["row"] |= {"outcome": 2, "output": '{"type":"perdure.errors.Overloaded"}'}


@breaks("I72")
def a_payload_outlives_its_workflow(s: Streams) -> None:
    s.append(s.last("order-1"), "delete")


@breaks("I72")
def an_open_workflow_is_purged(s: Streams) -> None:
    line = s.last("order-1")
    line["row"] |= {"status": CODE[Status.WAITING], "closed": None}
    s.append(line, "delete")


@pytest.mark.parametrize("spoil", SPOILS)
def test_spoiled_evidence_is_noticed(day: Lines, spoil: str) -> None:
    number = spoil.partition(" ")[0]
    streams = Streams(*copy.deepcopy(day))  # type: ignore[arg-type]
    SPOILS[spoil](streams)
    verdict = check(Evidence(streams.audit, streams.ledger, streams.history, streams.faults))
    assert number in verdict.broken, str(verdict)
    shown = next(one for one in verdict.violations if one.invariant == number)
    assert shown.what, "it is said what is wrong"


def test_a_child_with_a_key_may_be_there_before_its_parents_record_of_it(day: Lines) -> None:
    """It is begun by a transaction of its own."""
    s = Streams(*copy.deepcopy(day))  # type: ignore[arg-type]
    record = s.changes("history", kind=Kind.CHILD)[0]
    s.audit.remove(record)
    assert "I20" in check(Evidence(s.audit)).broken
    s.append(s.changes("dedup", op="insert")[0], id=record["row"]["data"])
    assert "I20" not in check(Evidence(s.audit)).broken


def test_mail_that_a_failover_lost_may_have_been_received_before(day: Lines) -> None:
    s = Streams(*copy.deepcopy(day))  # type: ignore[arg-type]
    taken = next(line for line in s.changes("message", op="update") if line["row"]["taken_seq"])
    s.audit[:] = [line for line in s.audit if line["row"].get("mid") != taken["row"]["mid"]]
    assert "I26" in check(Evidence(s.audit)).broken
    lost = (taken["row"]["dest"], taken["row"]["data"])
    assert "I26" not in check(Evidence(s.audit, lost_mail=[lost])).broken


def passed_over(day: Lines) -> tuple[Streams, dict[str, Any]]:
    """The spoiled day, and the line by which the one that is passed over was put in line."""
    s = Streams(*copy.deepcopy(day))  # type: ignore[arg-type]
    one_is_passed_over(s)
    return s, [line for line in s.changes("workflow", op="insert") if line["row"]["lane"] is not None][1]


def test_what_is_not_committed_yet_is_not_passed_over(day: Lines) -> None:
    """Who is cut off between its changes and its commit hides them from everybody until it goes on."""
    by_commit, inserted = passed_over(day)
    inserted |= {"tx": 1_000_001, "committed": inserted["at"] + 60_000_000}
    assert check(Evidence(by_commit.audit), only={"I39"}).good
    by_a_later_change, inserted = passed_over(day)
    inserted["tx"] = 1_000_001
    by_a_later_change.append(by_a_later_change.changes("payload")[0], at=inserted["at"] + 60_000_000)
    by_a_later_change.audit[-1]["tx"] = inserted["tx"]
    assert check(Evidence(by_a_later_change.audit), only={"I39"}).good
    too_early, inserted = passed_over(day)
    inserted |= {"tx": 1_000_001, "committed": inserted["at"] + 1}
    assert check(Evidence(too_early.audit), only={"I39"}).broken == {"I39"}


def stopped_in_its_commit(day: Lines) -> tuple[Streams, Lines]:
    """A holder of two runs was stopped in the commit that ended the suspect of them; others declared it dead.

    Who takes the other one does not count the death for it. Gives that commit's lines, too: the last record, the end.
    """
    s = Streams(*copy.deepcopy(day))  # type: ignore[arg-type]
    s.append(s.changes("incarnation")[0], "insert", id=ANOTHER, state="alive")
    running = CODE[Status.RUNNING]
    for id, deaths in (("suspect", 2), ("beside it", 0)):
        s.append(
            s.changes("workflow", id="order-1")[0], "insert",
            id=id, run=1, status=running, owner=ANOTHER, attempts=deaths, last_seq=0, closed=None, lane=None,
        )  # fmt: skip
    s.append(s.changes("history", kind=Kind.STEP)[0], "insert", id="suspect", run=1, seq=1)
    s.append(s.changes("workflow", id="suspect")[0], "update", status=CODE[Status.COMPLETED], owner=None, last_seq=1)
    ended = s.audit[-2:]
    s.append(s.changes("incarnation", id=ANOTHER)[0], "update", state="dead")
    s.append(s.changes("workflow", id="beside it")[0], "update", owner="e" * 32, at=s.audit[-1]["at"] + 1_000_000)
    return s, ended


def test_a_suspect_is_in_its_holders_hands_until_that_ones_commit_is_seen(day: Lines) -> None:
    for after_the_takeover in (10_000_000, -1):  # who takes over may have looked before, at any time since the death
        late, ended = stopped_in_its_commit(day)
        for line in ended:
            line |= {"tx": 1_000_001, "committed": late.audit[-1]["at"] + after_the_takeover}
        assert check(Evidence(late.audit), only={"I9"}).good, after_the_takeover
    for committed in (None, late.audit[-2]["at"] - 1):
        in_time, ended = stopped_in_its_commit(day)
        for line in ended:
            line |= {"tx": 1_000_001, "committed": committed}
        assert check(Evidence(in_time.audit), only={"I9"}).broken == {"I9"}, committed


@pytest.mark.postgres
async def test_the_audit_knows_when_a_change_was_committed() -> None:
    with Cluster(settings={"track_commit_timestamp": "on"}) as cluster:
        url = cluster.url(cluster.create_database())
        await install_audit(url)
        first, second = await asyncpg.connect(url), await asyncpg.connect(url)
        held = first.transaction()
        await held.start()
        await first.execute(QUEUE, "held back")
        await second.execute(QUEUE, "meanwhile")
        meanwhile = await second.fetchval(CLOCK)
        await held.commit()
        after = await second.fetchval(CLOCK)
        for connection in (first, second):
            await connection.close()
        lines = {line["row"]["name"]: line for line in await read_audit(url) if line["table"] == "queue"}
    assert lines["held back"]["n"] < lines["meanwhile"]["n"]
    assert lines["held back"]["at"] <= lines["meanwhile"]["committed"] <= meanwhile
    assert meanwhile <= lines["held back"]["committed"] <= after
    seen = {change.row["name"]: change.seen for change in Evidence(list(lines.values())).of("queue")}
    assert seen["held back"] == lines["held back"]["committed"]


@pytest.mark.postgres
async def test_an_audit_without_commit_timestamps_goes_by_the_changes(postgres_url: str) -> None:
    await install_audit(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(QUEUE, "plain")
    await connection.close()
    (line,) = (line for line in await read_audit(postgres_url) if line["table"] == "queue")
    assert line["committed"] is None
    assert Evidence([line]).changes[0].seen == line["at"]


def test_each_invariant_has_been_broken_once() -> None:
    assert set(INVARIANTS) == {name.partition(" ")[0] for name in SPOILS} | SCHEDULES | ORDERS


def test_the_command_judges_files(day: Lines, tmp_path: Path) -> None:
    names = ("audit", "ledger", "history", "faults")
    for name, lines in zip(names, day, strict=True):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "perdure.testing.histcheck", *names]
    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "I7  holds" in good.stdout

    text = (tmp_path / "audit").read_text().splitlines()
    kept = [line for line in text if not ('"table": "history"' in line and '"seq": 2,' in line)]
    (tmp_path / "audit").write_text("\n".join(kept))
    bad = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "I7 violated: record 3 of " in bad.stdout

    missing = subprocess.run([*command[:-1], "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "no file 'nowhere'" in missing.stderr
