"""The Store: all that the rest of the house knows of a database.

Promises, for every dialect (the conformance suite in ``tests/store`` tries each):

- ``commit`` is all or nothing per unit, durable when it returns, and safe to repeat after ``LostAnswer``: the same
  batch (same nonces) again gives the same verdicts and no second row.
- A unit with ``claim`` is applied only if the row of ``key.id`` has exactly that token *and* run at the moment of the
  commit. Token equality alone decides: the row may already be closed or parked by a first try of the same unit.
- No method raises anything but ``DatabaseTrouble`` (try again later; ``LostAnswer`` if the outcome is unknown),
  ``SchemaMismatch``, or a bug. Trouble never loses the connection for good: the next call reconnects.
- Nothing here sleeps, retries on its own for more than one round, or decides anything.
- Every method that depends on time takes ``now`` (microseconds); None means the database's clock, read once per
  statement. Production passes None; tests and the simulator pass the clock.
- All rows belong to ``app``: nothing of another app is seen or touched.

A store belongs to one event loop and one process; ``close`` may be called twice.
"""

from __future__ import annotations

import builtins  # `list` is a method here
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from perdure.model.deployments import COUNTED, LATEST, SAMPLED, Deployment, Order, Ruling
from perdure.model.ids import Holding, RunKey
from perdure.model.orders import Answered, MoveOrder, SkipOrder
from perdure.model.queues import Limits, QueueChange, QueueCount, QueueRow
from perdure.model.records import Claimed, DecisionRow, Ended, Incarnation, Message, Record, Request, WorkflowRow
from perdure.model.resets import ResetOrder
from perdure.model.schedules import Firing, Reschedule, Schedule, Which
from perdure.model.states import Reason
from perdure.model.streams import StreamAsk, StreamPage
from perdure.model.trials import Trial
from perdure.model.versions import Routing, Sample, Terms, Unfinished, Version
from perdure.model.writes import Pause, Receipt, Reopen, Rewind, Start, Unit, Verdict
from perdure.query.conditions import Query
from perdure.store.asks import ClaimRequest, Counted, Fates, Found, Health, Poll
from perdure.store.batches import Batches
from perdure.store.lines import Declared, Deduplicated, LineClaim, LineRequest
from perdure.store.problems import ProblemStore
from perdure.store.rollcall import RollCall
from perdure.store.schemed import SchemeStore
from perdure.store.upkeep import Upkeep
from perdure.store.within import Within


class Store(ProblemStore, SchemeStore, Protocol):
    """One app's view of one database."""

    app: str
    url: str  # masked: safe to print

    @property
    def upkeep(self) -> Upkeep:
        """Retention, sizes, and carrying the app to another database."""
        ...

    @property
    def batches(self) -> Batches:
        """What an operator does to all that a query names."""
        ...

    async def open(self) -> None:
        """Connect.

        Raises ``ConfigError`` (bad URL, missing extra), ``DatabaseTrouble`` (unreachable), ``SchemaMismatch``.
        """
        ...

    async def close(self) -> None: ...

    # -- schema
    async def migrate(self) -> list[str]:
        """Apply what is missing, under a lock; the names applied. Two processes at once: one applies, one waits."""
        ...

    async def schema_version(self) -> tuple[int, int]:
        """(in the database, known to this library); 0 for an empty database."""
        ...

    # -- writing
    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        """Write a batch in one transaction. Units of distinct runs, in any order; see ``model/writes.py``."""
        ...

    def within(self, unit: Unit, before: int = 0, *, now: int | None = None) -> Within[Verdict]:
        """Write ``unit`` in a transaction of a session of the same database; it stands or falls with that.

        One record of a run that is held (the last statement before the commit: it locks the run's row; ``before``: the
        last ``seq`` that was there when the transaction began), or starts and messages of a caller outside. What
        another has committed under the same id or key is told; nothing is sent twice.
        """
        ...

    def within_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> Within[WorkflowRow | None]:
        """``start_once`` in such a transaction, which has the key's row until it ends; nothing is sent twice."""
        ...

    async def wrote(self, key: RunKey, seq: int, nonce: bytes) -> bool:
        """Whether a transaction whose answer was lost has committed that record; waits while it may still do so."""
        ...

    async def turn(self) -> Callable[[], None]:
        """Wait for the right to begin a writing transaction on a connection of one's own; call to give it back."""
        ...

    async def place(self) -> str:
        """Which database this is, in the words of ``sessions/places.py``."""
        ...

    async def claim(self, want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        """Take ready workflows of ``want.version`` or, if ``want.fresh``, of none.

        Sets running, owner, token, epoch + 1; at the first claim also ``started``, ``deadline`` and ``version``.

        Deletes the wake rows of what it takes, in the same commit; a cancel wake is kept as ``row.cancel``.
        Woken means: a wake row exists and the status is waiting, or it is a cancel wake and the status is queued,
        scheduled or waiting. Skips rows that others have locked. Oldest due first.
        """
        ...

    async def adopt(
        self,
        gone: Collection[bytes],
        want: ClaimRequest,
        *,
        death: bool = True,
        suspects: bool = False,
        spared: Collection[bytes] = (),
        now: int | None = None,
    ) -> list[Claimed]:
        """Take up to ``limit`` running workflows of ``want.version`` owned by incarnations in ``gone``.

        ``death`` counts an attempt, leaves ``Cause.CRASH`` in the row and notes the default decision. The count begins
        anew if the claim that ended got anywhere (an outcome was recorded under it). A *suspect* has been in flight at
        two deaths or more in a row without getting anywhere, this one included: only suspects are taken with
        ``suspects``, fewest deaths first, and none without. ``spared``: owners that died with a suspect; what they had
        beside it is not counted. What was given to another than the asker by now is left to that one.
        """
        ...

    async def with_suspects(self, gone: Collection[bytes], version: str) -> list[bytes]:
        """Those of ``gone`` that own what had been a suspect of ``version`` before they died; see ``adopt``."""
        ...

    async def reclaim(self, keys: Sequence[RunKey], want: ClaimRequest, *, now: int | None = None) -> list[Claimed]:
        """Take again, under a new token, running workflows that ``want.owner`` itself owns (a lost claim answer).

        Not what was moved to a version other than its own, and nothing if a series was begun after that of ``want``.
        """
        ...

    async def replace(self, old: RunKey, next: Start, nonce: bytes, *, now: int | None = None) -> bool:
        """Begin the next run of an id whose latest run is ``old`` and closed: the row becomes run ``old.run`` + 1.

        The old run goes to ``past_run`` as superseded, and wakes that came too late for it are deleted: a command to
        cancel it must not reach the next. False if the latest run is another by now, or is open.
        Repeated with the same ``next.nonce``: True, and nothing is begun twice.
        """
        ...

    async def release_held(
        self, reasons: Collection[Reason], version: str, *, since: int | None = None, now: int | None = None
    ) -> int:
        """Queue what is held for one of these reasons under ``version`` and whose back-off has passed; how many.

        ``since``: only what has been held since then. Each is claimed and replayed again.
        """
        ...

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        """Begin the next run of a workflow, open or closed, from records of its latest run: ``Rewind`` from outside.

        Done only if the row still has the run, token and status that were ``seen``; whoever holds it can write no more.
        False if not: read it again. Repeated with the same ``change.next.nonce``: True, and nothing is begun twice.
        """
        ...

    async def pause(self, id: str, order: Pause | None, *, now: int | None = None) -> WorkflowRow | None:
        """Hold an open workflow that nobody holds, for ``Reason.PAUSED``; tell whoever holds it to do so.

        What has begun and stands in no line keeps its slot, and is claimed for its deadline or a command to cancel; the
        rest keeps its place and time. ``order`` None takes back what is not done yet. The row afterwards, if any.
        """
        ...

    async def reopen(self, seen: WorkflowRow, order: Reopen, *, now: int | None = None) -> bool:
        """Queue an open workflow, under another token, if the row still has the run, token and status that were seen.

        Repeated with the same ``order.nonce``: True, and nothing is done twice.
        """
        ...

    async def move(self, orders: Sequence[MoveOrder], *, now: int | None = None) -> builtins.list[Answered]:
        """Let open workflows run on elsewhere, by ``rule_move``, all in one commit; an answer for each, in order.

        No two of one id. Done again (the same order): already so.
        """
        ...

    async def reset(self, orders: Sequence[ResetOrder], *, now: int | None = None) -> builtins.list[Answered]:
        """Begin their next runs, by ``rule_reset``; otherwise the same."""
        ...

    async def skip(self, order: SkipOrder, *, now: int | None = None) -> Answered:
        """Give a step in flight its outcome, by ``rule_skip``."""
        ...

    async def fork(
        self, source: RunKey, start: Start, mark: Record, *, end: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        """Begin another workflow from the records of ``source`` before ``mark.seq``, which the mark follows.

        None if that is done, now or (by the same ``start.nonce``) before; else the row that has its id. ``end``: in the
        same commit the source's latest run is terminated, if it is open, with this reason.
        """
        ...

    async def cancel(
        self, id: str, reason: str, nonce: bytes, *, unserved: str | None = None, now: int | None = None
    ) -> WorkflowRow | None:
        """Ask a workflow to cancel; the row after it, None if unknown.

        Queued, scheduled and held ones become cancelled here, in one compare-and-set (parent and watchers woken).
        Running and waiting ones get a cancel wake: their holder acts on it. So do those that are held although their
        code fits (``held_with_code``), which are queued for that. Closed ones are left.
        ``unserved``: a version that nobody runs any more; a waiting one of it becomes cancelled here, too
        (``unheard``).
        """
        ...

    async def terminate(self, id: str, reason: str, nonce: bytes, *, now: int | None = None) -> WorkflowRow | None:
        """End an open workflow at once: terminated, claim token replaced by ``nonce``, parent and watchers woken."""
        ...

    # -- reading (each sees all that was committed before it began)
    async def histories(self, keys: Sequence[RunKey]) -> dict[RunKey, list[Record]]:
        """The histories of a batch in one query, each ordered by ``seq``; [] for a run without records."""
        ...

    async def inbox(self, ids: Collection[str]) -> list[Message]:
        """Untaken messages of these workflows, first in first out per sender and topic."""
        ...

    async def rows(self, ids: Collection[str]) -> dict[str, WorkflowRow]:
        """The latest run of each id that exists, with what is ``told`` it."""
        ...

    async def run(self, key: RunKey) -> WorkflowRow | None:
        """One run, latest or earlier."""
        ...

    async def inputs(self, keys: Collection[RunKey]) -> dict[RunKey, bytes]: ...

    async def ended(self, ids: Collection[str]) -> dict[str, Ended]:
        """Those of the ids whose latest run is closed, with their outcome."""
        ...

    async def fates(self, ids: Collection[str]) -> Fates:
        """The same, and those of the ids that no workflow has, in one snapshot: what whoever waits asks."""
        ...

    async def events(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        """The latest value of each (workflow id, event name) that has been set by its latest run."""
        ...

    async def streams(self, asks: Sequence[StreamAsk]) -> builtins.list[StreamPage | None]:
        """What there is for each reader, in order; None for an unknown id. The end and the values: one snapshot."""
        ...

    async def records_after(self, key: RunKey, seq: int, limit: int) -> builtins.list[Record]:
        """Up to ``limit`` records of a run after ``seq``, in order."""
        ...

    async def decisions(self, ids: Collection[str]) -> builtins.list[DecisionRow]:
        """What was decided about any run of these ids, also of those deleted since; each id's in order."""
        ...

    async def list(self, query: Query, *, limit: int = 100, cursor: str | None = None, now: int | None = None) -> Found:
        """A page of what a query names, in its order, after the place where another page ended.

        What is inserted meanwhile shifts nothing. Raises ``ConfigError`` for a cursor of another listing.
        """
        ...

    async def count(self, query: Query, *, now: int | None = None) -> builtins.list[Counted]:
        """How many workflows a query names: one count, or one for each group, the largest first.

        Raises ``ConfigError`` for more groups than can be told.
        """
        ...

    async def poll(
        self,
        owner: bytes | None,
        held: Collection[Holding] | None,
        version: str = "",
        *,
        fresh: bool = True,
        after: str = "",
        now: int | None = None,
    ) -> Poll:
        """One cheap look for all waits together: wakes for what ``owner`` holds, when something becomes claimable.

        Of ``version`` or, if ``fresh``, of none is what may become claimable. Of the wakes for ids after ``after`` a
        bounded number is looked at; where there are more, the next look goes on from ``Poll.after``.

        ``held`` None: do not search for lost claims (the search reads all that ``owner`` holds).
        """
        ...

    # -- executors
    async def register(self, who: Incarnation, lease: int, *, now: int | None = None) -> None:
        """Insert the incarnation with a lease of ``lease`` microseconds."""
        ...

    async def heartbeat(self, id: bytes, lease: int, *, lag: int = 0, now: int | None = None) -> int | None:
        """Renew, noting how late the event loop is (``lag``, microseconds): the database's time.

        None if the incarnation was declared dead (no row, or not alive or draining).
        """
        ...

    async def incarnations(self) -> builtins.list[Incarnation]: ...

    async def roll_call(self, *, now: int | None = None) -> RollCall:
        """Who is there, what they own and what nobody holds, in one question."""
        ...

    def lifeline(self, id: bytes, lost: Callable[[], None]) -> None:
        """Before ``open``: this store renews the lease of ``id``, and others may see by its connection that it lives.

        ``lost`` is called on this store's loop when the connection has ended, where there is one.
        """
        ...

    async def bury(
        self,
        ids: Collection[bytes],
        *,
        expired_only: bool = True,
        beats: Mapping[bytes, int] | None = None,
        now: int | None = None,
    ) -> builtins.list[bytes]:
        """Mark alive or draining incarnations dead; those marked.

        ``expired_only``: whose lease has run out. By the database's own clock a lease is good for its length after the
        start of the server, which may be why it was not renewed. ``beats``: who has renewed exactly so often.
        """
        ...

    async def new_series(self, id: bytes, series: int) -> None:
        """From now on claims of ``id`` by an earlier series take nothing; what they had taken can be seen.

        A claim whose answer was lost may be under way still. It is waited for, or comes too late.
        """
        ...

    async def drain(self, id: bytes) -> None:
        """Mark an alive incarnation as draining: it serves, and takes on nothing more."""
        ...

    async def hand_over(self, ids: Collection[bytes], heir: str | None) -> builtins.list[str]:
        """Give what the dead and gone among ``ids`` own to the executor ``heir`` (None: to any): these workflows' ids.

        Marks them released; to others than ``heir`` later, if called again. Who serves is left alone.
        """
        ...

    async def leave(self, id: bytes) -> None:
        """Mark an incarnation gone; then ``forget``."""
        ...

    async def forget(self) -> None:
        """Forget the gone, dead and released that own nothing."""
        ...

    # -- versions of the code
    async def launched(
        self,
        version: str,
        fingerprints: Mapping[str, str],
        apart: Collection[bytes],
        *,
        auto: bool,
        now: int | None = None,
    ) -> Routing:
        """Register a launch of ``version``; where new work goes after it, by ``versions.routing.after_launch``.

        ``apart``: incarnations that count for nothing: the one that launches, and those that are proven gone.
        ``auto``: whether a launch may make its version the current one. Repeated, it changes nothing more.
        """
        ...

    async def routing(self) -> Routing | None:
        """Where new work goes; None before the first launch."""
        ...

    async def change_deployment(self, order: Order, *, now: int | None = None) -> Ruling:
        """What an operator orders of a version, by ``versions.deployments.rule``, with all that it rests on unchanged.

        Repeated (the same ``order.nonce``) after it was done: done, and nothing is done twice.
        """
        ...

    async def deployment(self, *, bound: int = COUNTED, changes: int = LATEST, now: int | None = None) -> Deployment:
        """All of it, in one snapshot. ``bound``: where counts of open work stop; ``changes``: so many of the latest."""
        ...

    async def sample(self, version: str, since: int, latest: int = SAMPLED) -> Sample:
        """What became of workflows that a version began, among the ``latest`` created since then."""
        ...

    async def versions(self) -> builtins.list[Version]:
        """All versions that were ever launched or named by an operator, the latest launched first."""
        ...

    async def declare(self, terms: Collection[Terms], claim: bytes) -> int:
        """Note what the code declares of those held under ``claim`` that were started without it; how many it told."""
        ...

    async def unfinished(self, limit: int = 10_000) -> builtins.list[Unfinished]:
        """Open work by version, the oldest first; what has none yet left out. No count goes beyond ``limit``."""
        ...

    async def upgrade(
        self,
        version: str,
        names: Collection[str],
        limit: int,
        *,
        gone: Collection[bytes] = (),
        ramp: tuple[bytes, bool] | None = None,
        retry: Collection[Reason] = (),
        now: int | None = None,
    ) -> int:
        """Give ``version`` to workflows declared ``auto_upgrade`` of these names; how many, ``limit`` at most.

        Those of other versions that nobody holds, or that one of ``gone`` does; what is held for a reason in ``retry``
        is queued with it. ``ramp``: the bound of its share (``versions.routing.share``), and whether those within it
        are meant, or the others. Skips rows that others have locked.
        """
        ...

    # -- queues
    async def queues(self) -> builtins.list[QueueRow]:
        """All queues that are known, by name."""
        ...

    async def queue_counts(self, bound: int = 100_000) -> dict[str, QueueCount]:
        """What each queue holds that holds something. No count goes much beyond ``bound``."""
        ...

    async def declare_queues(self, code: Mapping[str, Limits], *, over: bool = True, now: int | None = None) -> None:
        """Note the limits that the code declares; those that an operator has changed stay as they are.

        ``over``: also of queues that are declared already, with other limits.
        """
        ...

    async def make_queues(self, names: Collection[str], *, now: int | None = None) -> None:
        """Make queues known that no code declares: without limits, as long as nobody sets any."""
        ...

    async def change_queue(self, name: str, change: QueueChange, *, now: int | None = None) -> QueueRow:
        """An operator's change, of a queue that may be new; what holds now. It holds for every claim that follows."""
        ...

    async def claim_line(self, want: LineRequest, *, now: int | None = None) -> LineClaim:
        """Take what the queue lets through: by priority, then first in, first out; partitions in turn.

        At every commit its limits hold: what was let through and is open, not held and not in line again, is at most
        ``concurrency``; in every window of ``rate_period``, by the database's clock, at most ``rate_limit`` are let
        through; the same of each partition; ``mine`` and what is taken is at most ``worker_concurrency``. Nothing of a
        paused or unknown queue; nothing that has been in line for too long.
        """
        ...

    async def line_up(self, versions: Collection[str], limit: int, *, now: int | None = None) -> builtins.list[str]:
        """Put what was delayed until now in line (``limit`` of each of ``versions``); in which queues."""
        ...

    async def line_up_declared(
        self, found: Collection[Declared], claim: bytes, *, now: int | None = None
    ) -> builtins.list[str]:
        """Hand back what is held under ``claim``, as if it had been started in the queue that its code declares; ids.

        Only what has no queue, was not told to cancel, and (as the caller knows) has no history.
        """
        ...

    async def expire(self, limit: int, nonce: bytes, *, now: int | None = None) -> builtins.list[str]:
        """Close what has been in line for too long, as timed out; up to ``limit``, their ids sorted."""
        ...

    async def start_once(self, start: Start, how: Deduplicated, *, now: int | None = None) -> WorkflowRow | None:
        """Begin a workflow of a queue, unless an open one of that queue has the same key.

        None if it is begun, now or by a first try (the same ``start.nonce``); else the row that has the key, or the id.
        With ``how.debounce``, one that has the key and was not begun yet waits anew and gets the input, and comes back;
        one that was begun loses the key.
        """
        ...

    # -- questions to executors
    async def ask(self, version: str, request: Request, patience: int, *, now: int | None = None) -> None:
        """Ask executors of a version something that takes its code; who asks waits ``patience`` microseconds."""
        ...

    async def asked(self, version: str, *, now: int | None = None) -> builtins.list[Request]:
        """What is asked of a version and not answered, oldest first."""
        ...

    async def answer(self, nonce: bytes, owner: bytes, text: bytes) -> None:
        """Answer; the first answer counts."""
        ...

    async def answered(self, nonce: bytes) -> bytes | None:
        """The answer, read once; None as long as there is none."""

    # -- work of versions that nobody runs any more
    async def strays(self, versions: Collection[str], untried: str | None, limit: int) -> builtins.list[WorkflowRow]:
        """Up to ``limit`` open workflows of these versions that nobody holds, oldest due first within a version.

        ``untried``: only those that may move to this version (none that is pinned, none that is held for another
        reason than the code) and that have no trial for it as they stand.
        """
        ...

    async def strays_told_to_cancel(self, versions: Collection[str]) -> builtins.list[tuple[str, str]]:
        """Those of these versions that nobody holds and somebody has told to cancel: id and reason, by id."""
        ...

    async def adopt_strays(
        self, seen: Sequence[WorkflowRow], version: str, *, now: int | None = None
    ) -> builtins.list[str]:
        """Move these to ``version``, each if it stands as it was seen; the ids of those moved, sorted.

        Compared: version, run, claim token and last ``seq``; and that nobody holds it. Held ones are queued, waiting
        ones due at once. Nothing that was written under the old token passes any more, and the trial is forgotten.
        """
        ...

    async def release_orphans(
        self, gone: Collection[bytes], served: Collection[str], limit: int, *, now: int | None = None
    ) -> builtins.list[str]:
        """Queue up to ``limit`` running workflows owned by ``gone`` whose version is not in ``served``; their ids.

        A death each: attempt counted, ``Cause.CRASH``, claim token gone. What has an heir by now is left to it.
        """
        ...

    async def note_trials(self, trials: Sequence[Trial], *, now: int | None = None) -> None:
        """Note that these could not be adopted, and why; of each workflow the latest trial stands."""
        ...

    async def trials(self, ids: Collection[str]) -> dict[str, Trial]:
        """The latest trial of each of these that was tried."""
        ...

    # -- schedules
    async def schedules(
        self, names: Collection[str] | None = None, *, due: int | None = None
    ) -> builtins.list[Schedule]:
        """Schedules by name; those of ``names``, those that fire or may have something to start at ``due``."""
        ...

    async def firings(self, which: Which) -> builtins.list[Firing]:
        """What became of nominal times."""
        ...

    async def change_schedule(self, order: Reschedule, *, now: int | None = None) -> bool:
        """Write a schedule, its firings and their starts in one commit, if its row has the revision that was seen.

        False if not: read it again. A start whose id is taken by the same workflow was made before, and counts; by
        another, its firing is skipped (``id_taken``). What was started stays started, whatever is noted of it later.
        Repeated after it was done: False.
        """
        ...

    # -- hints (never needed for correctness)
    # One that names a queue says that somebody without a partition stands in its line, and nothing else.
    def hint(self, queue: str = "") -> None:
        """Tell other processes that something may have become ready. Coalesced, off the commit path, never raises."""
        ...

    def on_hint(self, callback: Callable[[Collection[str]], None]) -> None:
        """Call back on this store's loop, with the queues named, when another process hinted (or the file changed)."""
        ...

    async def health(self) -> Health: ...

    async def apps(self) -> builtins.list[str]:
        """The names of all apps of this database, sorted: those that have executors, workflows or schedules.

        If none has, those that were ever launched. A store of the app "" may be asked this, the schema, and ``health``.
        """
        ...
