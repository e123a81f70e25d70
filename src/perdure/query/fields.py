"""The table of fields: what each is called, which fact it is, how its values are written, what may be asked of it.

How a dialect gets a fact stands in its ``search.py`` (``store/postgres``, ``store/sqlite``), under the same ``Fact``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from perdure.errors import did_you_mean
from perdure.query.conditions import Attribute, Fact, Subject
from perdure.query.marks import Unfit
from perdure.query.tree import Name


class Reading(StrEnum):
    """How the values of a field are written, and therefore what may be asked of it."""

    TEXT = "text"
    WHOLE = "a whole number"
    TIME = "a time"
    SPAN = "a duration"
    STATUS = "a status"
    SEED_STATUS = "an execution status"
    VERSION_OF_APP = "a version written 'app:version'"
    REASON = "a reason"
    PROBLEM = "a problem"
    VERSIONING = "a versioning behavior"
    ANY = "text, a number, true or false"


_ORDERED = frozenset({"=", "<", "<=", ">", ">=", "IN", "BETWEEN", "NULL"})
_TEXT = _ORDERED | {"STARTS_WITH"}
_CHOICE = frozenset({"=", "IN", "NULL"})
SIGNS: dict[Reading, frozenset[str]] = {
    **dict.fromkeys((Reading.TEXT, Reading.VERSION_OF_APP, Reading.ANY), _TEXT),
    **dict.fromkeys((Reading.WHOLE, Reading.TIME, Reading.SPAN), _ORDERED),
    **dict.fromkeys(
        (Reading.STATUS, Reading.SEED_STATUS, Reading.REASON, Reading.PROBLEM, Reading.VERSIONING), _CHOICE
    ),
}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field."""

    name: str
    subject: Subject
    reading: Reading
    aliases: tuple[str, ...] = ()

    @property
    def groups(self) -> bool:
        """Whether a count may be grouped by it: times and durations would make a group of each row."""
        return self.reading not in (Reading.TIME, Reading.SPAN)

    @property
    def sorts(self) -> bool:
        """Whether a list may be ordered by it: attributes of different types have no order."""
        return self.reading is not Reading.ANY


def _field(name: str, fact: Fact, reading: Reading, *aliases: str) -> Field:
    return Field(name=name, subject=fact, reading=reading, aliases=aliases)


FIELDS: tuple[Field, ...] = (
    _field("id", Fact.ID, Reading.TEXT, "WorkflowId"),
    _field("run", Fact.RUN, Reading.WHOLE, "RunId"),
    _field("type", Fact.NAME, Reading.TEXT, "name", "WorkflowType"),
    _field("status", Fact.STATUS, Reading.STATUS),
    _field("ExecutionStatus", Fact.STATUS, Reading.SEED_STATUS),
    _field("version", Fact.VERSION, Reading.TEXT),
    _field("WorkerDeploymentVersion", Fact.VERSION, Reading.VERSION_OF_APP),
    _field("queue", Fact.QUEUE, Reading.TEXT, "TaskQueue"),
    _field("partition", Fact.PARTITION, Reading.TEXT),
    _field("priority", Fact.PRIORITY, Reading.WHOLE),
    _field("executor", Fact.EXECUTOR, Reading.TEXT),
    _field("parent", Fact.PARENT, Reading.TEXT, "ParentWorkflowId"),
    _field("created", Fact.CREATED, Reading.TIME, "StartTime"),
    _field("started", Fact.STARTED, Reading.TIME, "ExecutionTime"),
    _field("updated", Fact.UPDATED, Reading.TIME),
    _field("closed", Fact.CLOSED, Reading.TIME, "CloseTime"),
    _field("deadline", Fact.DEADLINE, Reading.TIME),
    _field("duration", Fact.DURATION, Reading.SPAN, "ExecutionDuration"),
    _field("reason", Fact.REASON, Reading.REASON),
    _field("problem", Fact.PROBLEM, Reading.PROBLEM, "ReportedProblems"),
    _field("attempts", Fact.ATTEMPTS, Reading.WHOLE),
    _field("versioning", Fact.VERSIONING, Reading.VERSIONING, "WorkflowVersioningBehavior"),
    _field("error", Fact.ERROR, Reading.TEXT),
)

_PREFIX = "temporal"
_KNOWN = {name.lower(): field for field in FIELDS for name in (field.name, *field.aliases)}
NAMES: tuple[str, ...] = tuple(field.name for field in FIELDS if field.name.islower())
"""Our own names, for people."""


def find_field(name: Name) -> Field:
    """The field of that name, in any case, with or without the seed's prefix. Raises ``Unfit``."""
    if name.attribute:
        return Field(name=f"attributes.{name.text}", subject=Attribute(name.text), reading=Reading.ANY)
    asked = name.text.lower()
    field = _KNOWN.get(asked) or _KNOWN.get(asked.removeprefix(_PREFIX))
    if field is None:
        near = did_you_mean(asked.removeprefix(_PREFIX), _KNOWN)
        raise Unfit(
            name.at,
            f"there is no field {name.text!r}{near}; fields are {', '.join(NAMES)}, "
            f"and attributes.{name.text} for an attribute of that name",
        )
    return field


def name_of(subject: Subject) -> str:
    """What a fact or attribute is called in queries and answers."""
    if isinstance(subject, Attribute):
        return f"attributes.{subject.name}"
    return _NAMES[subject]


_NAMES = {field.subject: field.name for field in reversed(FIELDS)}
