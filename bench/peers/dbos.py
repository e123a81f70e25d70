"""DBOS's workloads. One JSON line a run: `.venv-peers/dbos/bin/python -m bench.peers.dbos --db URL --workload burst`.

On SQLite it is given the SQLite of `pysqlite3-binary`: this version of DBOS needs a newer one than many systems have.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.meter import Meter, again, contender_arguments, emit, latencies, quiet, rates, two_lives, wait_line

if any(argument.startswith("--db=sqlite") for argument in sys.argv):
    import pysqlite3

    sys.modules["sqlite3"], sys.modules["sqlite3.dbapi2"] = pysqlite3, pysqlite3.dbapi2

from dbos import DBOS, DBOSClient

marks: dict[str, float] = {}
arrived: dict[int, float] = {}
published: dict[int, float] = {}
here, go = threading.Semaphore(0), threading.Semaphore(0)
reached = 0
reached_lock = threading.Lock()
second_life = False


@DBOS.step()
def step(i: int) -> int:
    return i


@DBOS.workflow()
def work(k: int) -> int:
    for i in range(k):
        step(i)
    return k


@DBOS.step()
def moment() -> float:
    return time.perf_counter()


@DBOS.workflow()
def when(k: int) -> float:
    return moment()


@DBOS.step()
def first_new() -> int:
    marks.setdefault("first_new", time.perf_counter())
    return 1


@DBOS.workflow()
def recovering(k: int) -> int:
    global reached
    for i in range(k):
        step(i)
    with reached_lock:
        reached += 1
    if not second_life:
        time.sleep(10_000)
    first_new()
    return k


@DBOS.workflow()
def taker(n: int) -> None:
    for i in range(n):
        DBOS.recv("box", timeout_seconds=60)
        arrived[i] = time.perf_counter()
        here.release()


@DBOS.workflow()
def teller(n: int) -> None:
    for i in range(n):
        go.acquire()
        published[i] = time.perf_counter()
        DBOS.set_event(f"told{i}", i)


def launch(a: argparse.Namespace) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": a.db,
            "log_level": "ERROR",
            "application_version": "bench",
            "executor_id": "local",
        }
    )
    if a.workload in QUEUES and not a.role:
        DBOS.listen_queues([])  # its executors are processes of their own
    DBOS.launch()


def latency(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    times: list[float] = []
    meter.start()
    for _ in range(a.n):
        began = time.perf_counter()
        DBOS.start_workflow(work, 1).get_result()
        times.append(time.perf_counter() - began)
    return {**latencies(times), **rates(meter.stop(), a.n, 1)}


def burst(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    for handle in [DBOS.start_workflow(work, a.k) for _ in range(a.n)]:
        handle.get_result()
    return rates(meter.stop(), a.n, a.k)


def sequential(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    meter.start()
    DBOS.start_workflow(work, a.n).get_result()
    return rates(meter.stop(), 1, a.n)


def wake(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    sends: list[float] = []
    events: list[float] = []
    handle = DBOS.start_workflow(taker, a.n)
    meter.start()
    for i in range(a.n):
        time.sleep(0.02)
        began = time.perf_counter()
        DBOS.send(handle.workflow_id, i, "box")
        here.acquire()
        sends.append(arrived[i] - began)
    handle = DBOS.start_workflow(teller, a.n)
    for i in range(a.n):
        soon = threading.Timer(0.02, go.release)
        soon.start()
        DBOS.get_event(handle.workflow_id, f"told{i}", 60)
        events.append(time.perf_counter() - published[i])
    return {**latencies(sends, "send_recv_"), **latencies(events, "event_get_"), **meter.stop()}


def listen(a: argparse.Namespace) -> None:
    """An executor of the queue, until it is killed."""
    launch(a)
    DBOS.register_queue("tasks", polling_interval_sec=0.05)
    print("SERVES", flush=True)
    time.sleep(10_000)


def finished() -> int:
    return len(DBOS.list_workflows(status="SUCCESS", load_input=False, load_output=False))


def enqueue(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """One by one, by threads: what this client does at once."""
    client = DBOSClient(system_database_url=a.db)
    with ThreadPoolExecutor(20) as threads:
        meter.start()
        list(threads.map(lambda _: client.enqueue({"queue_name": "tasks", "workflow_name": "work"}, 1), range(a.n)))
    return rates(meter.stop(), a.n, 1)


def queue(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    enqueue(a, Meter())
    before = finished()
    processes = [again("bench.peers.dbos", a, "first") for _ in range(a.k)]
    for process in processes:
        wait_line(process, "SERVES")
    meter.start()
    while finished() < before + a.n:
        time.sleep(0.2)
    result = rates(meter.stop(), a.n, 1)
    for process in processes:
        process.kill()
    return result


def queue_start(a: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    process = again("bench.peers.dbos", a, "first")
    wait_line(process, "SERVES")
    client, times = DBOSClient(system_database_url=a.db), []
    for _ in range(a.n):
        time.sleep(0.1)
        began = time.perf_counter()
        handle = client.enqueue({"queue_name": "tasks", "workflow_name": "when"}, 1)
        times.append(handle.get_result() - began)
    process.kill()
    return latencies(times)


QUEUES = {"queue": queue, "enqueue": enqueue, "queue_start": queue_start}
WORKLOADS = {"latency": latency, "burst": burst, "sequential": sequential, "wake": wake}


def first(a: argparse.Namespace) -> None:
    workflows, steps = (1, a.n) if a.workload == "recover_one" else (a.n, a.k)
    launch(a)
    for _ in range(workflows):
        DBOS.start_workflow(recovering, steps)
    while reached < workflows:
        time.sleep(0.02)
    print("REACHED", flush=True)
    time.sleep(10_000)


def second(a: argparse.Namespace) -> None:
    global second_life
    second_life = True
    workflows = 1 if a.workload == "recover_one" else a.n
    meter = Meter(a.server_pid).start()
    began = time.perf_counter()
    launch(a)
    while len(DBOS.list_workflows(status="SUCCESS", limit=workflows, load_input=False, load_output=False)) < workflows:
        time.sleep(0.01 if workflows == 1 else 0.5)
    ended = time.perf_counter()
    result = {
        **meter.stop(),
        "launch_to_first_new_s": round(marks["first_new"] - began, 4),
        "launch_to_all_s": round(ended - began, 3),
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    a = contender_arguments(__doc__, [*WORKLOADS, *QUEUES, "recover_one", "recover_many"]).parse_args()
    if a.role and a.workload in QUEUES:
        listen(a)
    if a.role:
        (first if a.role == "first" else second)(a)
        sys.stdout.flush()
        os._exit(0)
    if a.workload.startswith("recover"):
        emit(two_lives("bench.peers.dbos", a))
        os._exit(0)
    launch(a)
    for _ in range(30):
        DBOS.start_workflow(work, 1).get_result()
    for handle in [DBOS.start_workflow(work, 1) for _ in range(50)]:
        handle.get_result()
    quiet(a.quiet)
    emit((WORKLOADS | QUEUES)[a.workload](a, Meter(a.server_pid)))
    os._exit(0)


if __name__ == "__main__":
    main()
