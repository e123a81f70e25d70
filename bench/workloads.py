"""What is measured: each line of the table, who takes part, and what the line should come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

POSTGRES_SLOW = {"commit_delay": "2000", "commit_siblings": "0"}  # 2 ms more a commit, as on a cloud volume


@dataclass(frozen=True)
class Run:
    """One contender's program, and with what."""

    workload: str
    n: int = 1
    k: int = 1


@dataclass(frozen=True)
class Target:
    """Our figure over another's: at least (rates) or at most (times, CPU) so much. ``against`` a peer or a line."""

    against: str
    ratio: float


@dataclass(frozen=True)
class Line:
    """One line of the table. ``of``: a line whose runs it shows another figure of, instead of runs of its own."""

    name: str
    title: str
    metric: str
    unit: str
    better: Literal["less", "more"]
    runs: dict[str, Run] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    at_most: float | None = None  # an absolute target
    store: Literal["postgres", "sqlite"] = "postgres"
    settings: dict[str, str] = field(default_factory=dict)
    of: str = ""
    most_runs: int = 99
    group: str = ""


def everybody(workload: str, n: int, k: int = 1, *, bound: bool = True) -> dict[str, Run]:
    names = ["perdure", "dbos", "restate", "absurd"] + (["bound"] if bound else [])
    return {name: Run(workload, n, k) for name in names}


def only(workload: str, n: int, k: int = 1, *others: str, **different: Run) -> dict[str, Run]:
    return {**{name: Run(workload, n, k) for name in ("perdure", *others)}, **different}


P99_S = ("p99_s", "s", "less")


def queued(workload: str, n: int, k: int = 1, *, peer: int = 0) -> dict[str, Run]:
    """Perdure, and DBOS with ``peer`` tasks."""
    return {"perdure": Run(workload, n, k)} | ({"dbos": Run(workload, peer, k)} if peer else {})


MS, RATE_W, RATE_S = ("p50_ms", "ms", "less"), ("wf_per_s", "wf/s", "more"), ("steps_per_s", "steps/s", "more")


def line(
    name: str, title: str, what: tuple[str, str, str], runs: dict[str, Run], *targets: Target, **more: object
) -> Line:
    metric, unit, better = what
    return Line(name, title, metric, unit, better, runs, targets, **more)  # type: ignore[arg-type]


T = Target
LINES: tuple[Line, ...] = (
    line(
        "latency", "start -> result, one step, p50", MS,
        {**everybody("latency", 1000), "absurd": Run("latency", 50), "dbos": Run("latency", 500)}, T("dbos", 0.35),
    ),
    line("burst", "5,000 workflows x 1 step", RATE_W, everybody("burst", 5000), T("dbos", 20), T("restate", 8)),
    line(
        "cpu", "CPU for 1,000 workflows x 1 step", ("cpu_s_per_1000", "s", "less"), {}, T("dbos", 1 / 20), of="burst"
    ),
    line(
        "sequential", "1 workflow x 2,000 steps", RATE_S, everybody("sequential", 2000), T("dbos", 5), T("restate", 2.5)
    ),
    line("fanout", "100 workflows x 50 steps", RATE_S, everybody("burst", 100, 50), T("dbos", 50), T("restate", 7)),
    line(
        "sync_start", "sync: 2,000 x 1, one thread starts", RATE_W,
        only("sync_start", 2000, dbos=Run("burst", 2000)), T("dbos", 4), group="sync",
    ),
    line("sync_many", "sync: 5,000 x 1, start_many", RATE_W, only("sync_many", 5000), T("burst", 0.5), group="sync"),
    line(
        "sync_threads", "sync: 5,000 x 1, 16 threads", RATE_W, only("sync_threads", 5000),
        group="sync",
    ),
    line(
        "sync_sequential", "sync: 1 x 2,000 steps", RATE_S, only("sync_sequential", 2000), T("sequential", 0.5),
        group="sync",
    ),
    line("sync_fanout", "sync: 100 x 50 steps", RATE_S, only("sync_burst", 100, 50), T("fanout", 0.5), group="sync"),
    line(
        "greenlets_start", "greenlets: 2,000 x 1, one thread starts", RATE_W,
        only("greenlets_start", 2000, dbos=Run("burst", 2000)), T("dbos", 4), group="greenlets",
    ),
    line(
        "greenlets_many", "greenlets: 5,000 x 1, start_many", RATE_W, only("greenlets_many", 5000), T("burst", 0.5),
        group="greenlets",
    ),
    line(
        "greenlets_sequential", "greenlets: 1 x 2,000 steps", RATE_S, only("greenlets_sequential", 2000),
        T("sequential", 0.5), group="greenlets",
    ),
    line(
        "greenlets_fanout", "greenlets: 100 x 50 steps", RATE_S, only("greenlets_burst", 100, 50), T("fanout", 0.5),
        group="greenlets",
    ),
    line(
        "sqlite_sequential", "SQLite: 1 x 2,000 steps", RATE_S,
        only("sequential", 2000, 1, "bound", dbos=Run("sequential", 1000)), T("dbos", 5),
        store="sqlite", group="sqlite",
    ),
    line(
        "sqlite_burst", "SQLite: 5,000 x 1 step", RATE_W,
        only("burst", 5000, 1, "bound", dbos=Run("burst", 500)), T("dbos", 50), store="sqlite", group="sqlite",
    ),
    line(
        "send_recv", "send -> recv, p50", ("send_recv_p50_ms", "ms", "less"),
        only("wake", 200, dbos=Run("wake", 50), restate=Run("wake", 50)), at_most=2.0, group="wake",
    ),
    line(
        "event_get", "event set -> get, p50", ("event_get_p50_ms", "ms", "less"), {}, at_most=2.0, of="send_recv",
        group="wake",
    ),
    line("wide", "1,000 workflows x 50 steps", RATE_S, only("burst", 1000, 50), group="slow"),
    line(
        "slow_wide", "the same, commits 2 ms slower", RATE_S, only("burst", 1000, 50), T("wide", 0.70),
        settings=POSTGRES_SLOW, group="slow",
    ),
    line(
        "slow_burst", "5,000 x 1, commits 2 ms slower", RATE_W, only("burst", 5000), T("burst", 0.70),
        settings=POSTGRES_SLOW, group="slow",
    ),
    line(
        "slow_fanout", "100 x 50, commits 2 ms slower", RATE_S, only("burst", 100, 50), T("fanout", 0.35),
        settings=POSTGRES_SLOW, group="slow",
    ),
    line(
        "recover_one", "1 x 2,000 steps done: claim -> next", ("claim_to_first_new_s", "s", "less"),
        only("recover_one", 2000, 1, "dbos", "restate"), at_most=0.1, group="recover",
    ),
    line(
        "recover_launch", "the same: launch -> next", ("launch_to_first_new_s", "s", "less"), {}, of="recover_one",
        group="recover",
    ),
    line(
        "recover_many", "2,000 x 5 steps done: launch -> all", ("launch_to_all_s", "s", "less"),
        only("recover_many", 2000, 5, "dbos"), T("dbos", 1 / 20), most_runs=1, group="recover",
    ),
    line(
        "interrupted", "10,000 x 5 steps done, 3 to go: claim -> all", ("claim_to_all_s", "s", "less"),
        only("interrupted", 10_000), at_most=5.0, group="recover",
    ),
    line(
        "interrupted_new", "new work meanwhile, p50", ("new_work_p50_ms", "ms", "less"), {}, of="interrupted",
        group="recover",
    ),
    line(
        "interrupted_sqlite", "SQLite: the same 10,000", ("claim_to_all_s", "s", "less"), only("interrupted", 10_000),
        at_most=5.0, store="sqlite", group="recover",
    ),
    line(
        "interrupted_sqlite_new", "SQLite: new work meanwhile, p50", ("new_work_p50_ms", "ms", "less"), {},
        of="interrupted_sqlite", group="recover",
    ),
    line(
        "takeover", "kill -9 -> next step elsewhere, same machine, p99", P99_S, only("takeover", 100, 15),
        at_most=2.0, most_runs=1, group="takeover",
    ),
    line(
        "takeover_sqlite", "SQLite: the same", P99_S, only("takeover", 100, 15), at_most=2.0, store="sqlite",
        most_runs=1, group="takeover",
    ),
    line(
        "takeover_lease", "killed elsewhere: no pid to tell, lease of 15 s, p99", P99_S,
        only("takeover_lease", 10, 15), at_most=11.0,
        most_runs=1, group="takeover",
    ),
    line(
        "takeover_fast", "the same with a lease of 6 s, p99", P99_S, only("takeover_lease", 20, 6), at_most=7.0,
        most_runs=1, group="takeover",
    ),
    line(
        "takeover_fast_sqlite", "SQLite: the same with a lease of 6 s, p99", P99_S, only("takeover_lease", 20, 6),
        at_most=7.0, store="sqlite", most_runs=1, group="takeover",
    ),
    line("queue", "5,000 x 1 in a queue, 1 executor", RATE_W, queued("queue", 5000, peer=2000), T("dbos", 20),
         group="queue"),
    line("queue_two", "the same, 2 executors", RATE_W, queued("queue", 5000, 2), T("queue", 1.2), group="queue"),
    line("queue_among", "the same among 1,000,000 finished", RATE_W, queued("queue_among", 5000, 1000),
         T("queue", 0.9), group="queue", most_runs=1),
    line("enqueue", "enqueue by a client, 200 in flight", RATE_W, queued("enqueue", 5000, peer=2000), T("dbos", 2),
         group="queue"),
    line("enqueue_many", "enqueue by a client, in bulk", RATE_W,
         only("enqueue_many", 20_000, dbos=Run("enqueue", 2000)), T("dbos", 10), group="queue"),
    line("queue_start", "enqueue -> start, p50", MS, queued("queue_start", 200, peer=20), at_most=5.0, group="queue"),
    line("queue_idle", "idle, 20 queues: statements a second", ("statements_per_s", "1/s", "less"),
         queued("queue_idle", 20, 20), at_most=2.0, group="queue"),
)  # fmt: skip

QUICK = {  # the parts of n and k that a short pass takes
    "latency": 0.1, "burst": 0.2, "sequential": 0.15, "wake": 0.1, "sync_start": 0.1, "sync_many": 0.2,
    "sync_threads": 0.2, "sync_sequential": 0.15, "sync_burst": 1.0,
    "greenlets_start": 0.1, "greenlets_many": 0.2, "greenlets_sequential": 0.15, "greenlets_burst": 1.0,
    "recover_one": 1.0, "recover_many": 0.1,
    "interrupted": 0.1, "takeover": 0.05, "takeover_lease": 0.2,
    "queue": 0.4, "queue_among": 0.4, "enqueue": 0.4, "enqueue_many": 0.4, "queue_start": 0.2, "queue_idle": 0.5,
}  # fmt: skip


K_IS_NO_SIZE = ("recover_many", "takeover", "takeover_lease")


def selected(names: list[str], quick: bool) -> list[Line]:
    """The lines asked for, by name or group, with those that they compare with; all without names."""
    wanted = {one.name for one in LINES if not names or one.name in names or one.group in names}
    unknown = [name for name in names if all(name not in (one.name, one.group) for one in LINES)]
    if unknown:
        known = ", ".join(
            [*(one.name for one in LINES), "sync, greenlets, sqlite, wake, slow, recover, takeover, queue"]
        )
        raise SystemExit(f"no such workload: {', '.join(unknown)}; there are: {known}")
    for one in LINES[::-1]:
        if one.name in wanted:
            wanted |= {target.against for target in one.targets} | {one.of}
    lines = [one for one in LINES if one.name in wanted]
    return [_shorter(one) for one in lines] if quick else lines


def _shorter(one: Line) -> Line:
    runs = {}
    for who, run in one.runs.items():
        part = QUICK[run.workload] if run.k == 1 or run.workload in K_IS_NO_SIZE else 0.5
        runs[who] = Run(run.workload, max(2, int(run.n * part)), run.k)
    return Line(**{**vars(one), "runs": runs})
