"""Points that a simulation must reach *sometimes*: a fault that never met what it threatens has shown nothing.

``sometimes("…")`` counts; ``POINTS`` names all that must be hit over the seeds of a run. One that is not is a failure.
"""

from __future__ import annotations

from collections import Counter

_hits: Counter[str] = Counter()


def sometimes(point: str, condition: object = True) -> None:
    """This happens sometimes (if ``condition``)."""
    if condition:
        _hits[point] += 1


def take_hits() -> Counter[str]:
    """The counts since this was last asked."""
    hits = Counter(_hits)
    _hits.clear()
    return hits


WRITES = ("commit", "claim", "adopt", "heartbeat", "register", "cancel")
READS = ("poll", "histories", "inbox", "ended", "rows", "incarnations")
RECORDS = (
    "STEP", "ATTEMPT", "TIMER", "RECV", "SEND", "EVENT", "CHILD", "RESULT", "READ", "CANCEL", "INTENT",
)  # fmt: skip
MOVES = (
    "queued to running", "scheduled to running", "running to waiting", "waiting to running", "running to completed",
    "running to failed", "running to cancelled", "running to timed_out", "running to queued", "queued to cancelled",
    "scheduled to cancelled",
)  # fmt: skip
ANSWERS = (
    "default", "resume", "rerun", "skip", "hold", "compensate", "run_from", "terminate", "nonsense", "hang", "raise",
)  # fmt: skip
ORDERS = ("reset", "fork", "restart", "skip", "move", "resume", "cancel", "terminate", "batch", "route")
ASKED = ("here", "line", "late", "named", "keyed")  # for a child that begins there
POINTS = (
    *(f"the answer of {op} was lost" for op in WRITES),
    *(f"{op} came through after its caller was told that it was lost" for op in ("commit", "claim", "adopt")),
    *(f"{op} was aborted" for op in (*WRITES, *READS)),
    *(f"the process died before {op}" for op in ("commit", "claim", "adopt")),
    *(f"the process died of an unanswered {op}" for op in ("commit", "claim", "adopt")),
    *(f"the process died right after {op}" for op in ("commit", "claim", "adopt")),
    *(f"a {kind} was recorded" for kind in RECORDS),
    *(f"a workflow went from {move}" for move in MOVES),
    "a process was killed",
    "a process was killed with work in flight",
    "a process was stopped",
    "a process was stopped for longer than its lease",
    "a process was cut off from the database",
    "a process was drained",
    "the database was down",
    "the database stood still",
    "a clock was wrong by more than half an hour",
    "a hint was lost",
    "a write was refused by the fence",
    "a start met its own first try",
    "a message met nobody",
    "work was taken over",
    "one workflow was taken over twice",
    "a death was proven on the same host",
    "a death was known by the lease alone",
    "who was declared dead came back as another",
    "a step was run again",
    "a step at most once was left unknown",
    "a step waited for the lease",
    "a lost claim was found",
    "a receive timed out",
    "a child outlived its parent",
    "a workflow began its next run",
    "two clients started one id at once",
    "a late message met an ended workflow",
    *(f"a policy was asked and answered: {answer}" for answer in ANSWERS),
    "a policy was asked after a drain",
    "a person let go on what a policy held",
    "a person gave away the work of the gone",
    "a person gave away the work of the living",
    *(f"a world of recovery={mode}" for mode in ("fleet", "own", "manual", "single")),
    "work was taken over by the order of a person",
    "work was taken over by whom a person named",
    "an executor took over its own work only",
    "a single one was back",
    "the database failed over",
    "a failover lost commits",
    "a run knew more than the database after a failover",
    *(f"a process was cut off: {how}" for how in ("refused", "mute", "deaf", "beats", "beatless")),
    *(f"an operator ordered: {verb}" for verb in ORDERS),
    "an order was given twice",
    "an operator's process died of an order",
    "a batch was gone on with by another process",
    "a rollout was undone",
    "work was adopted by another version",
    "work was upgraded",
    "work was stranded by a rollout",
    "pinned work waited for its version",
    "an item of a queue was let through",
    "an item of a queue was taken over",
    "a key was another's",
    "the answer of COMMIT was lost",
    "COMMIT was aborted",
    "COMMIT came through after its caller was told that it was lost",
    "the process died before COMMIT",
    "the process died of an unanswered COMMIT",
    "the process died right after COMMIT",
    "a process was stopped right before a COMMIT",
    "a COMMIT met a serialization failure",
    *(f"a COMMIT whose answer was lost had {what}" for what in ("happened", "not happened")),
    "a transaction was refused by the fence",
    "a transaction was refused by the fence of another database",
    *(f"a transaction failed: {what}" for what in ("LookupError", "StepTimeout")),
    "a transfer was made in the app's database",
    "a transfer was made in another database",
    "a transfer was found in another database by the next holder",
    "a transfer was on its way when its run was lost",
    "a transfer was made again after a reset",
    "an operator gave a transaction its result",
    *(f"a nominal time was {what}" for what in ("started", "skipped", "waiting")),
    "another transaction kept a row",
    "a row was given back to who waited for it",
    *(f"a row was kept for too long: {op}" for op in ("commit", "cancel")),
    *(f"a unit was in the way of its commit: {how}" for how in ("aborted", "dropped", "lost")),
    "a unit was set aside",
    "two units were set aside at once",
    "a source had more to write behind what was set aside",
    "a run waited for what was set aside of it",
    "what was set aside failed again",
    "what was set aside was written later",
    "a process ended while a unit was set aside",
    *(f"a body asked for a child that it had begun: {where}" for where in ASKED),
)
