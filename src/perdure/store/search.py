"""From a query to a statement: conditions, pages and counts, with all that users wrote as parameters.

Promises: nothing of a query's text becomes SQL; a statement is one snapshot; a page begins after a place in a total
order, never at an offset. What the dialects say differently, above all how a fact is got, is in their ``search.py``.

A row is ``c`` everywhere. SQL's third value counts as false, and ends at each ``is not true``: see conditions.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from perdure.errors import ConfigError
from perdure.model.records import WorkflowRow
from perdure.model.states import CLOSED, CODE, CODES, OPEN, VERSIONING, VERSIONINGS, Status, Versioning
from perdure.query.conditions import (
    AllOf,
    AnyOf,
    Attribute,
    Compare,
    Condition,
    Fact,
    Kind,
    Not,
    Now,
    OneOf,
    Order,
    Present,
    Query,
    Sign,
    StartsWith,
    Subject,
    Value,
)
from perdure.store.asks import Counted, Found
from perdure.store.cursor import Place, cursor_of, read_cursor

GROUPS_MAX = 10_000
COLUMNS = 38  # of a row; a page's statement adds two

# What a fact is only there for: said beside it, so that an index of those can be used.
_IMPLIED = {
    Fact.REASON: "c.status < 5 and c.status = 4", Fact.PROBLEM: "c.status < 5 and c.problem is not null",
    Fact.EXECUTOR: "c.status < 5 and c.status = 2", Fact.ERROR: "c.status >= 5",
}  # fmt: skip


class Search(ABC):
    """One statement in the making: its text, piece by piece, and its arguments."""

    facts: ClassVar[Mapping[Fact, str]]
    """What gets each fact, in SQL; ``@now`` in it is the statement's time, ``@perdure`` what stands before a table."""
    row: ClassVar[str]
    """The columns of a ``WorkflowRow``."""

    def __init__(self, app: str, now: int | None) -> None:
        self.arguments: list[Any] = []
        self._now_given = now
        self._now = ""
        self.app = self.give(app, Kind.TEXT)

    # -- what a dialect says

    @abstractmethod
    def give(self, value: Any, kind: Kind) -> str:
        """A parameter for a value."""

    @abstractmethod
    def among(self, expression: str, values: Sequence[Any], kind: Kind) -> str:
        """Whether an expression is one of these."""

    @abstractmethod
    def clock(self, given: int | None) -> str:
        """The time of the statement."""

    @abstractmethod
    def attribute_among(self, name: str, values: Sequence[str | float | bool]) -> str: ...

    @abstractmethod
    def attribute_compares(self, name: str, sign: Sign, value: str | float) -> str: ...

    @abstractmethod
    def attribute_present(self, name: str) -> str: ...

    @abstractmethod
    def attribute_group(self, name: str) -> str:
        """Its JSON, if it is text, a number, true or false."""

    def ordered(self, fact: Fact) -> str:
        """A fact in an order: text by code point."""
        return self.fact(fact)

    def table(self, name: str, query: Query, *, walks: bool) -> str:
        """The rows of this app in a table. All are as the rest says, and so are those of the index for this.

        ``walks``: they may be read in order, until a page is full.
        """
        return f"{name} c where c.app = {self.app} and c.parent_run >= 0"

    # -- statements

    def page(self, query: Query, limit: int, cursor: str | None) -> str:
        """Up to ``limit`` rows and one more, in order, each with its place's value and the time."""
        order = query.order
        place = None if cursor is None else read_cursor(cursor, order)
        if place is not None:
            self._now_given = place.now
        meant = [self.condition(query.condition)]
        if place is not None:
            meant.append(self._after(order, place, all_runs=query.all_runs))
        where = "".join(f" and {part}" for part in meant if part != "true")
        by = self.order(query)
        most = self.give(limit + 1, Kind.WHOLE)
        walks = order.fact is Fact.CREATED
        source = f"{self.table('workflow', query, walks=walks)}{where}"
        if query.all_runs:
            tables = (self.table(name, query, walks=walks) for name in ("workflow", "past_run"))
            halves = (
                f"select * from (select c.* from {table}{where} order by {by} limit {most}) h" for table in tables
            )
            source = f"({' union all '.join(halves)}) c"
        chosen = f"{self.row}, {self.ordered(order.fact)}, {self.now}"
        return self.placed(f"select {chosen} from {source} order by {by} limit {most}")

    def count(self, query: Query) -> str:
        """How many, in all or by the values of its groups."""
        meant = self.condition(query.condition)
        where = "" if meant == "true" else f" and {meant}"
        source = f"{self.table('workflow', query, walks=False)}{where}"
        if query.all_runs:
            tables = (self.table(name, query, walks=False) for name in ("workflow", "past_run"))
            halves = (f"select c.* from {table}{where}" for table in tables)
            source = f"({' union all '.join(halves)}) c"
        if not query.groups:
            return self.placed(f"select count(*) from {source}")
        groups = ", ".join(self._group(subject) for subject in query.groups)
        numbers = ", ".join(str(at + 1) for at in range(len(query.groups)))
        most = self.give(GROUPS_MAX + 1, Kind.WHOLE)
        return self.placed(f"select {groups}, count(*) from {source} group by {numbers} limit {most}")

    def frozen(self, query: Query, batch: str, most: int) -> str:
        """Puts the latest runs of what a query names, ``most`` at most, into the targets of a batch."""
        meant = self.condition(query.condition)
        where = "" if meant == "true" else f" and {meant}"
        source = f"{self.table('workflow', query, walks=False)}{where}"
        key, limit = self.give(batch, Kind.TEXT), self.give(most, Kind.WHOLE)
        into = "insert into @batch_target (app, batch, id, run)"
        return self.placed(f"{into} select c.app, {key}, c.id, c.run from {source} limit {limit}")

    def placed(self, sql: str) -> str:
        """The statement, its tables where they are."""
        return sql

    # -- pieces

    @property
    def now(self) -> str:
        """The statement's time, a parameter or read once."""
        self._now = self._now or self.clock(self._now_given)
        return self._now

    def fact(self, fact: Fact) -> str:
        """What gets a fact."""
        sql = self.facts[fact]
        return sql.replace("@now", self.now) if "@now" in sql else sql

    def condition(self, condition: Condition) -> str:
        """A condition in SQL."""
        match condition:
            case AllOf(parts):
                return self._joined(parts, " and ", "true")
            case AnyOf(parts):
                return self._joined(parts, " or ", "false")
            case Not(part):
                return f"({self.condition(part)}) is not true"
            case Present(subject):
                return self._present(subject)
            case OneOf(subject, values):
                return self._one_of(subject, values)
            case Compare(subject, sign, value):
                return self._compare(subject, sign, value)
            case StartsWith(subject, prefix):
                above = after(prefix)
                low = self._compare(subject, ">=", prefix)
                return low if above is None else f"({low} and {self._compare(subject, '<', above)})"

    def _joined(self, parts: Sequence[Condition], word: str, none: str) -> str:
        if not parts:
            return none
        return f"({word.join(self.condition(part) for part in parts)})"

    def _present(self, subject: Subject) -> str:
        if isinstance(subject, Attribute):
            return self.attribute_present(subject.name)
        if subject in (Fact.VERSION, Fact.PARTITION):
            return f"{self.fact(subject)} <> ''"
        return "true" if subject.always else self.beside(subject, f"{self.fact(subject)} is not null")

    def _one_of(self, subject: Subject, values: Sequence[Value]) -> str:
        if not values:
            return "false"
        if isinstance(subject, Attribute):
            return self.attribute_among(subject.name, [value for value in values if not isinstance(value, Now)])
        match subject:
            case Fact.STATUS:
                return _statuses(frozenset(Status(str(value)) for value in values))
            case Fact.VERSIONING:
                codes = sorted(VERSIONING[Versioning(str(value))] for value in values)
                return f"c.versioning in ({', '.join(map(str, codes))})"
            case Fact.EXECUTOR:
                labels = self.among("i.executor", values, Kind.TEXT)
                owners = f"select i.id from @incarnation i where i.app = {self.app} and {labels}"
                return self.beside(subject, f"c.owner in ({owners})")
            case _:
                fact, kind = self.fact(subject), subject.kind
                if subject is Fact.PROBLEM:  # that it is open is said beside it
                    fact = "c.problem"
                plain = [value for value in values if not isinstance(value, Now)]
                either = [self._compare(subject, "=", value) for value in values if isinstance(value, Now)]
                if len(plain) == 1:
                    either.append(f"{fact} = {self.give(plain[0], kind)}")
                elif plain:
                    either.append(self.among(fact, plain, kind))
                return self.beside(subject, either[0] if len(either) == 1 else f"({' or '.join(either)})")

    def _compare(self, subject: Subject, sign: str, value: Value) -> str:
        if isinstance(subject, Attribute):
            assert not isinstance(value, bool | Now)
            return self.attribute_compares(subject.name, sign, value)  # type: ignore[arg-type]
        if isinstance(value, Now):
            given = f"({self.now} + {self.give(value.plus, Kind.SPAN)})"
        else:
            given = self.give(value, subject.kind)
        return self.beside(subject, f"{self.ordered(subject)} {sign} {given}")

    def beside(self, fact: Fact, condition: str) -> str:
        """A condition on a fact, with what goes without saying for it and lets an index be used."""
        implied = _IMPLIED.get(fact)
        return condition if implied is None else f"({implied} and {condition})"

    def _group(self, subject: Subject) -> str:
        return self.attribute_group(subject.name) if isinstance(subject, Attribute) else self.fact(subject)

    # -- places in the order

    def order(self, query: Query) -> str:
        """The order of a list, a total one."""
        order = query.order
        way = " desc" if order.descending else ""
        last = "" if order.fact.always else " nulls last"
        runs = f", c.run{way}" if query.all_runs else ""
        return f"{self.ordered(order.fact)}{way}{last}, c.id{way}{runs}"

    def _after(self, order: Order, place: Place, *, all_runs: bool) -> str:
        sign = "<" if order.descending else ">"
        id = self.give(place.id, Kind.TEXT)
        tie = f"(c.id, c.run) {sign} ({id}, {self.give(place.run, Kind.WHOLE)})" if all_runs else f"c.id {sign} {id}"
        fact = self.ordered(order.fact)
        if place.value is None:
            return f"({fact} is null and {tie})"
        value = self.give(place.value, Kind.TEXT if order.fact.kind is Kind.TEXT else Kind.WHOLE)
        if order.fact.always:  # the first part is what an index is searched by
            return f"({fact} {sign}= {value} and ({fact} {sign} {value} or {tie}))"
        return f"({fact} {sign} {value} or ({fact} = {value} and {tie}) or {fact} is null)"


def _statuses(statuses: frozenset[Status]) -> str:
    """Their numbers are ours, and are written out: a partial index must be seen to hold them."""
    if statuses >= OPEN and statuses >= CLOSED:
        return "true"
    if statuses == OPEN:
        return "c.status < 5"
    if statuses == CLOSED:
        return "c.status >= 5"
    codes = sorted(CODE[status] for status in statuses)
    chosen = f"c.status = {codes[0]}" if len(codes) == 1 else f"c.status in ({', '.join(map(str, codes))})"
    return f"(c.status < 5 and {chosen})" if statuses <= OPEN else chosen


def after(prefix: str) -> str | None:
    """The first text after all that begin with ``prefix``; None if none is."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at]) + 1
        if code <= 0x10FFFF:
            return prefix[:at] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
    return None


# -- answers


def found(rows: Sequence[WorkflowRow], raw: Sequence[Any], query: Query, limit: int) -> Found:
    """A page of the rows read, of which one too many tells of a next page."""
    page = list(rows[:limit])
    if len(rows) <= limit or not page:
        return Found(rows=page, cursor=None)
    last = raw[limit - 1]
    return Found(rows=page, cursor=cursor_of(query.order, last[COLUMNS], page[-1].id, page[-1].run, last[COLUMNS + 1]))


def counted(raw: Sequence[Any], query: Query, decode: Callable[[Any], Any]) -> list[Counted]:
    """Counts by groups, the largest first. Raises ``ConfigError`` for too many groups.

    ``decode``: from JSON to an attribute's value.
    """
    if len(raw) > GROUPS_MAX:
        raise ConfigError(f"the count has more than {GROUPS_MAX:,} groups; narrow the query or group by less")
    sums: dict[Any, tuple[tuple[Any, ...], int]] = {}
    for row in raw:
        values = tuple(_value(subject, value, decode) for subject, value in zip(query.groups, row, strict=False))
        key = tuple((isinstance(value, bool), value) for value in values)  # 1 and 1.0 are one group, true is another
        sums[key] = values, row[len(values)] + sums.get(key, (values, 0))[1]
    both = sorted(sums.values(), key=lambda one: (-one[1], [_rank(value) for value in one[0]]))
    return [Counted(values, count) for values, count in both]


def _value(subject: Subject, value: Any, decode: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if isinstance(subject, Attribute):
        plain: Any = decode(value)
        return int(plain) if isinstance(plain, float) and plain.is_integer() else plain
    if subject.kind in (Kind.STATUS, Kind.VERSIONING):
        code: int = value
        return str(CODES[code] if subject.kind is Kind.STATUS else VERSIONINGS[code])
    return value


def _rank(value: Any) -> tuple[int, Any]:
    """Among values of several types: nothing last."""
    return (3, 0) if value is None else (isinstance(value, str) * 2 + isinstance(value, bool), value)
