"""What a batch can do to each of its targets: frozen values, whose fields are the options.

A verb's name and fields are stored with the batch, and are part of its key: never rename them, only add fields with
defaults. How each is carried out is in ``operations/targets.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from perdure.errors import ConfigError, did_you_mean
from perdure.model.orders import Goal, read_goal
from perdure.model.resets import Children, Exclude, Point, read_point
from perdure.model.states import Status


class Verb(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One verb. ``name`` is what it is called in orders and in the database."""

    name: ClassVar[str]
    open: ClassVar[bool] = True
    """Whether it does anything to what has not ended."""
    closed: ClassVar[bool] = False
    """Whether it does anything to what has ended."""
    many: ClassVar[int] = 500
    """Targets of one commit, at most: fewer where each costs many statements."""

    @property
    def chunk(self) -> int:
        """Targets of one commit, at most, with these options."""
        return self.many

    @property
    def target(self) -> str | None:
        """The version of the code that goes on, if it names one: what a plan's samples are replayed on."""
        return None

    @property
    def point(self) -> Point | None:
        """What is kept of each history, if not all of it."""
        return None

    def takes(self, status: Status) -> bool:
        """Whether it does anything to a workflow of this status."""
        return self.open if status.open else self.closed


class Cancel(Verb, frozen=True):
    """Stop before the next step; what runs may clean up.

    >>> Cancel()
    Cancel()
    """

    name = "cancel"


class Terminate(Verb, frozen=True):
    """End at once, without cleanup."""

    name = "terminate"


class Pause(Verb, frozen=True):
    """Stop before the next step, until unpaused."""

    name = "pause"
    many = 100


class Unpause(Verb, frozen=True):
    """Let what is paused go on where it was."""

    name = "unpause"


class Resume(Verb, frozen=True):
    """Let held, cancelled and timed out ones go on from their last recorded step; what is queued starts now.

    ``version``: of the code that goes on; only where somebody can say that the history replays there, or with
    ``force``.

    >>> Resume(version="v1").target
    'v1'
    """

    name = "resume"
    version: str | None = None
    force: bool = False

    @property
    def chunk(self) -> int:
        return 50 if self.version is not None and not self.force else self.many  # others are asked about each

    @property
    def target(self) -> str | None:
        return self.version

    def takes(self, status: Status) -> bool:
        return status.open or status in (Status.CANCELLED, Status.TIMED_OUT)


class Restart(Verb, frozen=True):
    """Begin anew under other ids, with the same names and input.

    ``terminate``: end the old ones in the same commit. ``version``: the new ones' code (default: as of any new one).
    """

    name = "restart"
    closed = True
    many = 100
    terminate: bool = False
    version: str | None = None


class Fork(Verb, frozen=True):
    """Begin others that keep what these have recorded before ``step``; None keeps all. ``version``: their code's."""

    name = "fork"
    closed = True
    many = 100
    step: str | int | None = None
    version: str | None = None

    @property
    def target(self) -> str | None:
        return self.version


class Delete(Verb, frozen=True):
    """Forget what has ended, whole, unless an open workflow may still ask for it."""

    name = "delete"
    open = False
    closed = True
    many = 100


class Move(Verb, frozen=True):
    """Let them run on elsewhere: ``to`` a version, ``"auto-upgrade"`` or ``"unset"``, as ``handle.move``.

    ``one_time``: there until each next comes to rest. ``force``: also to a version that was never launched.

    >>> Move(to="v3").target
    'v3'
    """

    name = "move"
    to: str
    one_time: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.one_time and self.goal.version is None:
            raise ConfigError(f"one_time (--one-time) goes with a version, not with to={self.to!r}")

    @property
    def goal(self) -> Goal:
        """Where to."""
        return read_goal(self.to, once=self.one_time)

    @property
    def target(self) -> str | None:
        return self.goal.version


class Skip(Verb, frozen=True):
    """Give the step in flight that ``step`` names, or whose path it is, its result, as ``handle.skip``.

    ``result``: what each body sees as the step's result; of what JSON knows.

    >>> Skip(step="notify", result={"sent": False})
    Skip(step='notify', result={'sent': False})
    """

    name = "skip"
    many = 100
    step: str
    result: Any


class Reset(Verb, frozen=True):
    """Begin their next runs, from what they have recorded before a point; ids and chains stay, as ``handle.reset``.

    ``to``: ``"first"``, ``"last"``, ``"before-version:V"``; all else is a step. ``exclude``: what the next runs are not
    given. ``move_to``: where they run on. ``children``: ``"reset"`` with those that the dropped part started.

    >>> Reset(to="first", exclude="all", move_to="v1").target
    'v1'
    """

    name = "reset"
    closed = True
    many = 400
    to: str
    exclude: Exclude = "none"
    move_to: str | None = None
    children: Children = "keep"
    force: bool = False

    @property
    def chunk(self) -> int:
        return 50 if self.children == "reset" else self.many  # each may be a family

    @property
    def goal(self) -> Goal | None:
        """Where to, if it says so."""
        return None if self.move_to is None else read_goal(self.move_to)

    @property
    def target(self) -> str | None:
        return None if self.goal is None else self.goal.version

    @property
    def point(self) -> Point:
        return read_point(self.to)


VERBS: dict[str, type[Verb]] = {
    kind.name: kind for kind in (Cancel, Terminate, Pause, Unpause, Resume, Restart, Fork, Delete, Move, Reset, Skip)
}
_encoder = msgspec.json.Encoder(order="sorted")


def options_of(verb: Verb) -> bytes:
    """Its options in JSON, always the same for the same.

    >>> options_of(Resume(version="v1"))
    b'{"force":false,"version":"v1"}'
    """
    return _encoder.encode(verb)


def read_verb(name: str, options: bytes | dict[str, Any]) -> Verb:
    """A verb by its name and options. Raises ``ConfigError``."""
    kind = VERBS.get(name)
    if kind is None:
        known = ", ".join(sorted(VERBS))
        raise ConfigError(f"{name!r} is no verb of a batch{did_you_mean(name, VERBS)}; there are: {known}")
    try:
        return msgspec.json.decode(options, type=kind) if isinstance(options, bytes) else msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name} does not take the options {options!r}: {error}") from None
