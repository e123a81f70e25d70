"""Every error that Perdure raises, drawn as a tree.

    Exception
    └── PerdureError                 anything that Perdure itself says
        ├── ConfigError              a setting, URL or file that cannot work             (fix it, start again)
        │   ├── DatabaseUnusable     the database is missing, refuses this user, or is no file of use
        │   └── QueryError           a query that cannot be read, with the place in it
        ├── DefinitionError          a workflow or step declared wrongly                 (fix the code)
        │   └── SchemeError          a process' scheme that cannot be run, with all that is wrong
        ├── NotOpen                  the app is not open                                 (open it first)
        ├── Misuse                   a call in the wrong place
        │   ├── WrongFace            perdure called where perdure.sync belongs, or back
        │   ├── NotDurable           a workflow body awaits real I/O
        │   ├── NotAwaited           a step was called and its result never awaited
        │   └── OutsideWorkflow      a call that only a workflow (or step) can make
        ├── Unserializable           a value that does not survive the round trip
        ├── WorkflowConflict         the id is taken by another name or input
        ├── WorkflowNotFound         no workflow of that id
        ├── WorkflowClosed           a message to a workflow that has ended, or a resume of one that is final
        ├── WorkflowStranded         no live executor runs the version that a workflow's history needs
        ├── WorkflowRefused          what was ordered of a workflow is not possible as it stands
        ├── StepNotFound             a history has no such step, or several of that name
        ├── StateNotFound            a process' scheme has no state of that name
        ├── ProcessError             what was ordered of a process was not done
        │   ├── Busy                 it is Running, or somebody was quicker                (try again)
        │   ├── NotAvailable         no such command in this state
        │   ├── NotAllowed           not for this actor
        │   └── Interrupted          its executor died meanwhile
        ├── ExecutorNotFound         no executor of that name or id
        ├── ScheduleNotFound         the app has no schedule of that name
        ├── ScheduleConflict         a schedule is in the way: its name, its workflow that runs, or the code
        ├── VersionNotFound          the app has no version of its code of that name
        ├── DeploymentConflict       a version's state, its executors, its work or another change is in the way
        ├── BatchNotFound            no batch of that key
        ├── BatchConflict            the key is another batch's, or the batch was cancelled
        ├── ExecutorAlive            what it holds is its own: it renews its lease
        ├── WorkflowFailed           the outcome of a workflow that did not complete
        │   ├── WorkflowCancelled
        │   ├── WorkflowTerminated
        │   └── WorkflowTimedOut
        ├── StepFailed               a recorded exception that cannot be rebuilt as its own class
        ├── StepTimeout              a step ran longer than its timeout (also a TimeoutError)
        ├── StepOutcomeUnknown       an at_most_once step was interrupted: it may have had its effect, or not
        ├── ResultTimeout            the time given to wait for an answer ran out (also a TimeoutError)
        └── DatabaseTrouble          the database cannot answer now; waits and tries again by itself
            ├── DatabaseUnavailable  a call from outside has waited for as long as its `patience` allows
            ├── LostAnswer           the connection broke: whether the write happened is unknown
            ├── Overloaded           a bound was hit (connections, disk, lock wait)
            │   └── RowLocked        another transaction has kept a row, an id or a key for too long
            ├── RightsMissing        the database lets this role do less than is needed      (grant it)
            └── SchemaMismatch       the database's schema is newer or older than this library can use

    BaseException
    ├── Evicted                      the body is being put away; let it pass
    ├── Cancelled                    the workflow was cancelled (sync face; asyncio.CancelledError in the async face)
    └── Compensating                 a recovery policy said to undo what was done

Each message says what happened, shows the value, and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class PerdureError(Exception):
    """Base of all that Perdure raises: ``except PerdureError`` catches every error of the library's own."""


class ConfigError(PerdureError):
    """A setting, database URL or file cannot work as given."""


class DatabaseUnusable(ConfigError):
    """The database that was named is missing, refuses this user, or is no file of use: waiting cures nothing."""


class QueryError(ConfigError):
    """A query cannot be read; the message shows the line with a caret under the place.

    Attributes:
        query: the whole text.
        line: where it is, from 1.
        column: the same, from 1, in characters.
    """

    def __init__(self, message: str, *, query: str = "", line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.query = query
        self.line = line
        self.column = column


class DefinitionError(PerdureError):
    """A workflow, step, resource or router is declared in a way that cannot be durable."""


class SchemeError(DefinitionError):
    """A scheme cannot be run or read as it is written.

    Attributes:
        problems: all that was found, each with what to do.
    """

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class NotOpen(PerdureError):
    """The app is not open, so there is no database to speak to."""


class Misuse(PerdureError):
    """A call that cannot be made where it was made."""


class WrongFace(Misuse):
    """The async face was called from a sync workflow, or the other way round."""


class NotDurable(Misuse):
    """A workflow body awaits something that no history can replay, or was woken by it: real I/O belongs in a step."""


class NotAwaited(Misuse):
    """A step or workflow was called inside a workflow and its result was never awaited."""


class OutsideWorkflow(Misuse):
    """A function that speaks for the calling workflow was called where there is none."""


class Unserializable(PerdureError):
    """A value does not survive the round trip to the database; ``path`` says which part of it."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class WorkflowConflict(PerdureError):
    """The workflow id is taken by a workflow of another name or input."""


class WorkflowNotFound(PerdureError):
    """The app has no workflow of that id."""


class WorkflowClosed(PerdureError):
    """The workflow has ended: it takes no more messages, and does not go on."""


class WorkflowStranded(PerdureError):
    """The workflow is of a version of the code that nobody runs, and could not be moved to another."""


class WorkflowRefused(PerdureError):
    """What was ordered of a workflow (move, reset, skip …) is not possible as it stands; the message says what is."""


class StepNotFound(PerdureError):
    """A history has no step of that name, path or number, or several of that name."""


class StateNotFound(PerdureError):
    """A process' scheme has no state of that name; the message lists those it has."""


class ProcessError(PerdureError):
    """What was ordered of a process was not done; it stands where it stood."""


class Busy(ProcessError):
    """The process is Running, or moved while the order was on its way."""


class NotAvailable(ProcessError):
    """The process has no such command in the state it stands in, its condition does not hold, or it is held or over."""


class NotAllowed(ProcessError):
    """The actor may not give this command now."""


class Interrupted(ProcessError):
    """The executor died while the order was being carried out; the process was put back to its last state."""


class ExecutorNotFound(PerdureError):
    """No executor, and no incarnation of one, is known by that name."""


class ExecutorAlive(PerdureError):
    """Work was ordered to be taken from an executor whose lease still runs."""


class ScheduleNotFound(PerdureError):
    """The app has no schedule of that name."""


class ScheduleConflict(PerdureError):
    """The name is taken by another schedule, the code declares it, or its workflow of before is still open."""


class VersionNotFound(PerdureError):
    """The app has no version of that name, or nothing of it was ever launched."""


class DeploymentConflict(PerdureError):
    """A change of a deployment was refused: by a version's state, executors or work, or by a change meanwhile."""


class BatchNotFound(PerdureError):
    """The app has no batch of that key."""


class BatchConflict(PerdureError):
    """The key is that of a batch with another verb, query or options; or the batch was cancelled, which is final."""


class WorkflowFailed(PerdureError):
    """The awaited workflow ended without a result; ``id``, ``status`` and the stored error say how."""

    def __init__(self, message: str, *, id: str = "", status: str = "failed") -> None:
        super().__init__(message)
        self.id = id
        self.status = status


class WorkflowCancelled(WorkflowFailed):
    """The awaited workflow was cancelled."""


class WorkflowTerminated(WorkflowFailed):
    """The awaited workflow was terminated."""


class WorkflowTimedOut(WorkflowFailed):
    """The awaited workflow ran out of its own time."""


class StepFailed(PerdureError):
    """A recorded exception whose class cannot be rebuilt: its type name, message and traceback.

    Attributes:
        type_name: the qualified name of the original exception's class.
        message: what ``str()`` of the original said.
        traceback: the original traceback, as text.
    """

    def __init__(self, type_name: str, message: str = "", traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback


class StepTimeout(PerdureError, TimeoutError):
    """A step's body ran longer than its ``timeout``."""


class StepOutcomeUnknown(PerdureError):
    """A step declared ``at_most_once`` was about to run, or running, when its executor died. It is not run again."""


class ResultTimeout(PerdureError, TimeoutError):
    """The time given to wait ran out; the workflow itself goes on."""


class DatabaseTrouble(PerdureError):
    """The database cannot answer now. Inside Perdure this is waited out, never a workflow's failure."""


class DatabaseUnavailable(DatabaseTrouble):
    """A call from outside gave up: the database has not answered for as long as ``patience`` allows.

    Attributes:
        unknown: whether the call may have taken effect, or may yet. False: nothing was changed, and nothing will be.
            What has an id (a start) or a key (a message) can be repeated with the same one either way.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class LostAnswer(DatabaseTrouble):
    """The connection broke while a write was under way: it may have happened or not."""


class Overloaded(DatabaseTrouble):
    """The database refused for lack of room: connections, disk, or a lock held too long."""


class RowLocked(Overloaded):
    """Another transaction has kept a row, or an id or key that it is about to take: others can be written meanwhile."""


class RightsMissing(DatabaseTrouble):
    """The database lets this role do less than is needed. Whoever works meanwhile goes on when it is granted."""


class SchemaMismatch(DatabaseTrouble):
    """The schema in the database is outside what this version of Perdure can use.

    Refused when an app or client opens. Whoever works meanwhile waits for the schema to be as it was, or to be stopped.
    """


class Evicted(BaseException):
    """Perdure is putting this workflow body away (it will be replayed later). Safe to let pass.

    If you see it in an ``except BaseException`` or ``finally`` block: the workflow is *not* ending here. Clean up
    nothing durable; every Perdure call from unwinding code is refused.
    """


class Cancelled(BaseException):
    """The workflow was cancelled (sync face). Raised once where the body stood; cleanup steps then run."""


class Compensating(BaseException):
    """A recovery policy decided to undo the workflow. Raised once where the body stood; cleanup steps then run."""


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """``" (did you mean 'crash'?)"``, or nothing if no known name is near.

    >>> did_you_mean("crsh", ["crash", "error"])
    " (did you mean 'crash'?)"
    """
    import difflib  # noqa: PLC0415 - only who is about to raise needs it

    close = difflib.get_close_matches(str(given), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
