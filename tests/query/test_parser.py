"""What texts mean, and what is said of those that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import ConfigError, QueryError
from perdure.model.info import from_datetime
from perdure.model.problems import ProblemKind
from perdure.model.states import CLOSED, OPEN, Reason, Status, Versioning
from perdure.query.conditions import (
    AllOf,
    AnyOf,
    Attribute,
    Compare,
    Fact,
    Not,
    Now,
    OneOf,
    Order,
    Present,
    Query,
    StartsWith,
)
from perdure.query.fields import FIELDS
from perdure.query.read import read_query

A, B, C = (OneOf(Fact.ID, (letter,)) for letter in "abc")
X = Attribute("x")
HOUR = 3_600_000_000


def day(text: str) -> int:
    from datetime import datetime

    return from_datetime(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", AllOf(())),
        ("  \n ", AllOf(())),
        ("id = 'a'", A),
        ('ID="a"', A),
        ("id = a", A),
        ("`id` = a", A),
        ("id == 'a'", None),
        ("id = 'it''s'", OneOf(Fact.ID, ("it's",))),
        ('id = "say ""x"""', OneOf(Fact.ID, ('say "x"',))),
        ("id = 'a\\'", OneOf(Fact.ID, ("a\\",))),
        ("id = order-42", OneOf(Fact.ID, ("order-42",))),
        ("id = 0198c2f0-7d1e-7a43", OneOf(Fact.ID, ("0198c2f0-7d1e-7a43",))),
        ("type = order", OneOf(Fact.NAME, ("order",))),
        ("name = 'x' and id = a", AllOf((OneOf(Fact.NAME, ("x",)), A))),
        ("id = a AND id = b OR id = c", AnyOf((AllOf((A, B)), C))),
        ("id = a AND (id = b OR type = c)", AllOf((A, AnyOf((B, OneOf(Fact.NAME, ("c",))))))),
        ("id = a AND (id = b OR id = c)", AllOf((A, OneOf(Fact.ID, ("b", "c"))))),
        ("id = a OR type = c OR id = b", AnyOf((OneOf(Fact.ID, ("a", "b")), OneOf(Fact.NAME, ("c",))))),
        ("NOT id = a AND id = b", AllOf((Not(A), B))),
        ("NOT NOT id = a", Not(Not(A))),
        ("((id = a))", A),
        ("id != a", Not(A)),
        ("id <> a", Not(A)),
        ("id IN (a, 'b', a)", OneOf(Fact.ID, ("a", "b"))),
        ("id NOT IN (a)", Not(A)),
        ("id not\nin (a)", Not(A)),
        ("id \\\n = a", A),
        ("id STARTS_WITH 'or'", StartsWith(Fact.ID, "or")),
        ("id not starts_with ord", Not(StartsWith(Fact.ID, "ord"))),
        ("id >= a", Compare(Fact.ID, ">=", "a")),
        ("id BETWEEN a AND b", AllOf((Compare(Fact.ID, ">=", "a"), Compare(Fact.ID, "<=", "b")))),
        ("queue IS NULL", Not(Present(Fact.QUEUE))),
        ("queue is not null", Present(Fact.QUEUE)),
        ("status = failed", OneOf(Fact.STATUS, (Status.FAILED,))),
        ("status = open", OneOf(Fact.STATUS, tuple(sorted(OPEN)))),
        ("status = CLOSED", OneOf(Fact.STATUS, tuple(sorted(CLOSED)))),
        ("status = Running", OneOf(Fact.STATUS, tuple(sorted(OPEN)))),
        ("status = running", OneOf(Fact.STATUS, (Status.RUNNING,))),
        ("ExecutionStatus = running", OneOf(Fact.STATUS, tuple(sorted(OPEN)))),
        ("status = TimedOut", OneOf(Fact.STATUS, (Status.TIMED_OUT,))),
        ("status = timed_out", OneOf(Fact.STATUS, (Status.TIMED_OUT,))),
        ("status = Canceled", OneOf(Fact.STATUS, (Status.CANCELLED,))),
        ("status = ContinuedAsNew", OneOf(Fact.STATUS, (Status.CONTINUED,))),
        ("status != open", OneOf(Fact.STATUS, tuple(sorted(CLOSED)))),
        ("run > 1", Compare(Fact.RUN, ">", 1)),
        ("priority = -2", OneOf(Fact.PRIORITY, (-2,))),
        ("duration > 90s", Compare(Fact.DURATION, ">", 90_000_000)),
        ("duration > '1h30m'", Compare(Fact.DURATION, ">", HOUR * 3 // 2)),
        ("duration > 1.5h", Compare(Fact.DURATION, ">", HOUR * 3 // 2)),
        ("duration < 5ms", Compare(Fact.DURATION, "<", 5_000)),
        ("created > '2026-11-20'", Compare(Fact.CREATED, ">", day("2026-11-20T00:00+00:00"))),
        ("created > 2026-11-20", Compare(Fact.CREATED, ">", day("2026-11-20T00:00+00:00"))),
        ("created > 2026-11-20T10:00:00Z", Compare(Fact.CREATED, ">", day("2026-11-20T10:00+00:00"))),
        ("created > '2026-11-20 10:00:00.5+02:00'", Compare(Fact.CREATED, ">", day("2026-11-20T08:00:00.5+00:00"))),
        ("created > now", Compare(Fact.CREATED, ">", Now(0))),
        ("created > now - 2h", Compare(Fact.CREATED, ">", Now(-2 * HOUR))),
        ("created>now-2h", Compare(Fact.CREATED, ">", Now(-2 * HOUR))),
        ("deadline < NOW + 1d", Compare(Fact.DEADLINE, "<", Now(24 * HOUR))),
        ("attributes.x = 1 OR attributes.x = true", OneOf(X, (1, True))),
        ("reason = paused", OneOf(Fact.REASON, (Reason.PAUSED,))),
        ("problem = executor_died", OneOf(Fact.PROBLEM, (ProblemKind.EXECUTOR_DIED,))),
        ("versioning = AutoUpgrade", OneOf(Fact.VERSIONING, (Versioning.AUTO_UPGRADE,))),
        ("attributes.x = 5", OneOf(X, (5,))),
        ("attributes.x = '5'", OneOf(X, ("5",))),
        ("attributes.x = true", OneOf(X, (True,))),
        ("attributes.x = 1e3", OneOf(X, (1000.0,))),
        ("attributes.x > 2026-11-20", Compare(X, ">", "2026-11-20")),
        ('Attributes."Any name" = 1', OneOf(Attribute("Any name"), (1,))),
        ("attributes.X = 1", OneOf(Attribute("X"), (1,))),
        ("attributes.x IS NULL", Not(Present(X))),
        ("WorkerDeploymentVersion = 'shop:v:2'", OneOf(Fact.VERSION, ("v:2",))),
        ("version = 'shop:v2'", OneOf(Fact.VERSION, ("shop:v2",))),
        ("TemporalTaskQueue = mail", OneOf(Fact.QUEUE, ("mail",))),
    ],
)
def test_what_a_text_means(text: str, condition: Any) -> None:
    if text.startswith("id =="):
        with pytest.raises(QueryError, match="one = is enough"):
            read_query(text, "shop")
    else:
        assert read_query(text, "shop").condition == condition


def test_true_is_not_one() -> None:
    condition = read_query("attributes.x IN (1, true, 1.0, 'true')").condition
    assert isinstance(condition, OneOf)
    assert [type(value) for value in condition.values] == [float, bool, str]


def test_order_groups_and_runs() -> None:
    assert read_query("").order == Order(Fact.CREATED, descending=True)
    assert read_query("ORDER BY closed").order == Order(Fact.CLOSED, descending=False)
    assert read_query("id = a order by StartTime desc") == Query(
        condition=A, order=Order(Fact.CREATED, descending=True)
    )
    counted = read_query("status = open GROUP BY version, WorkflowType, attributes.x, name", use="count")
    assert counted.groups == (Fact.VERSION, Fact.NAME, X)
    assert read_query("", all_runs=True).all_runs
    assert read_query("id = a", all_runs=True).all_runs


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("statsu = failed", 1, "no field 'statsu' (did you mean 'status'?)"),
        ("CustomerId = 5", 1, "attributes.CustomerId for an attribute of that name"),
        ("status = 5", 10, "5 is not a status; status is one of open, closed, scheduled"),
        ("status = fialed", 10, "fialed is not a status (did you mean 'failed'?)"),
        ("ExecutionStatus = 'Paused'", 19, "write reason = paused"),
        ("created = 'yesterday'", 11, "created is a time, which 'yesterday' is not; write e.g. '2026-11-20'"),
        ("created > 5", 11, "created is a time, which 5 is not"),
        ("created > 2026-13-01", 11, "created is a time, which 2026-13-01 is not"),
        ("duration > 5", 12, "duration is a duration, which 5 is not; write e.g. 90s"),
        ("duration > 5000y", 12, "duration is a duration, which 5000y is not"),
        ("duration > 99999999d", 12, "more than a century"),
        ("run = 'x'", 7, "run is a whole number, not 'x'"),
        ("run = 1.5", 7, "run is a whole number, not 1.5"),
        ("run = 99999999999999999999", 7, "run is a whole number, not 99999999999999999999"),
        ("version = 5", 11, "version is text; write it in quotes: '5'"),
        ("id = true", 6, "id is text; write it in quotes: 'true'"),
        (
            "run STARTS_WITH 1",
            5,
            "run is a whole number, which takes = !=, < <= > >=, IN, BETWEEN, IS NULL, not STARTS_WITH",
        ),
        ("status > failed", 8, "status is a status, which takes = !=, IN, IS NULL, not >"),
        ("attributes.x > true", 16, "true has no order; write attributes.x = true"),
        ("attributes.x STARTS_WITH 5", 26, "STARTS_WITH takes text; write '5'"),
        ("attributes.x = now", 16, "not with now"),
        ("problem = 'category=Nothing'", 11, "is not a problem"),
        ("WorkerDeploymentVersion = 'other:v2'", 27, "this is app 'shop'; 'other:v2' names a version of 'other'"),
        ("status", 7, "expected an operator (= != < <= > >= IN BETWEEN STARTS_WITH IS), but it ends"),
        ("status failed", 8, "expected an operator"),
        ("status = ", 9, "expected a value, but it ends"),
        ("status = AND id = a", 10, "expected a value, found 'AND'"),
        ("status = failed id = a", 17, "expected AND, OR, ORDER BY or GROUP BY, found 'id'"),
        ("status = failed ANDD id = a", 17, "found 'ANDD' (did you mean 'AND'?)"),
        ("id LIKE 'a%'", 4, "STARTS_WITH instead of LIKE"),
        ("id = a LIMIT 5", 8, "the limit is an option beside the query"),
        ("id = a && id = b", 8, "write AND"),
        ("(id = a", 8, "expected AND, OR or ), but it ends"),
        ("id = a)", 7, "found ')'"),
        ("id IN ()", 8, "expected a value, found ')'"),
        ("id IN (a, )", 11, "expected a value, found ')'"),
        ("id IN a", 7, "expected (, found 'a'"),
        ("id BETWEEN a", 13, "expected AND, but it ends"),
        ("id IS a", 7, "expected NULL, found 'a'"),
        ("id NOT = a", 8, "expected IN, BETWEEN or STARTS_WITH, found '='"),
        ("id = 'a", 6, "what begins with ' here has no ' at its end"),
        ("created > now -", 16, "expected a duration such as 2h, but it ends"),
        ("ORDER created", 7, "expected BY, found 'created'"),
        ("ORDER BY", 9, "expected the name of a field, but it ends"),
        ("ORDER BY attributes.x", 10, "cannot be ordered by attributes.x"),
        ("ORDER BY created SIDEWAYS", 18, "expected ASC or DESC, found 'SIDEWAYS'"),
        ("ORDER BY created, id", 17, "expected ASC or DESC, found ','"),
        ("GROUP BY status", 10, "GROUP BY is for a count"),
        ("status = 'a\0'", 12, "no database holds the character"),
        ("id = a; drop table workflow", 7, "found ';'"),
        ("attributes.a.b = 1", 11, """written in quotes, as in attributes."a.b\""""),
    ],
)
def test_what_is_said_of_a_text_that_means_nothing(text: str, column: int, said: str) -> None:
    with pytest.raises(QueryError) as raised:
        read_query(text, "shop")
    error = raised.value
    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert (error.query, error.line, error.column) == (text, 1, column)
    head, line, caret = str(error).split("\n")
    assert head.startswith(f"the query cannot be read at column {column}: ")
    assert line == f"  {text.replace(chr(0), ' ')}"
    assert caret.startswith(" " * (column + 1) + "^")
    assert set(caret.strip()) == {"^"}


def test_a_count_has_no_order_and_its_groups_are_few() -> None:
    with pytest.raises(QueryError, match="a count has no order"):
        read_query("ORDER BY id", use="count")
    with pytest.raises(QueryError, match="a set has no order"):
        read_query("ORDER BY id", use="set")
    with pytest.raises(QueryError, match="cannot be grouped by created"):
        read_query("GROUP BY created", use="count")
    with pytest.raises(QueryError, match="8 fields at most"):
        read_query("GROUP BY " + ", ".join(f"attributes.a{n}" for n in range(9)), use="count")


def test_the_line_and_the_column_of_a_long_text() -> None:
    text = "status = failed\n  AND typ = 'x'\n  AND id = a"
    with pytest.raises(QueryError) as raised:
        read_query(text)
    assert (raised.value.line, raised.value.column) == (2, 7)
    assert str(raised.value).split("\n")[1:] == ["    AND typ = 'x'", "        ^^^"]
    with pytest.raises(QueryError) as raised:
        read_query(" OR ".join(f"id = 'w-{n}'" for n in range(100)) + " OR idd = 1")
    line, caret = str(raised.value).split("\n")[1:]
    assert len(line) <= 162
    assert line[caret.index("^") :].startswith("idd")


def test_bounds_have_names() -> None:
    with pytest.raises(QueryError, match=r"50 deep"):
        read_query("NOT " * 60 + "id = a")
    with pytest.raises(QueryError, match="50 deep"):
        read_query("(id = a AND (id = b OR " * 60 + "id = c" + "))" * 60)
    assert read_query("(" * 5000 + "id = a" + ")" * 5000).condition == A
    with pytest.raises(QueryError, match="more than 500 comparisons; write IN"):
        read_query(" OR ".join(["id = a"] * 501))
    with pytest.raises(QueryError, match="more than 10000 values"):
        read_query(f"id IN ({', '.join(['a'] * 10_001)})")
    with pytest.raises(QueryError, match="200000 are the most"):
        read_query("id = '" + "a" * 200_000 + "'")
    for digits in ("9" * 5000, "1." + "9" * 5000, "1e" + "9" * 5000):
        with pytest.raises(QueryError, match=r"are the most|too large"):
            read_query(f"attributes.x = {digits}")
    with pytest.raises(QueryError, match="too large"):
        read_query("attributes.x = 1e999")


def test_each_fact_has_a_field_and_each_name_is_one() -> None:
    assert {field.subject for field in FIELDS} == set(Fact)
    names = [name.lower() for field in FIELDS for name in (field.name, *field.aliases)]
    assert len(names) == len(set(names))
