"""Restate's workloads, on a server of its own on loopback with its defaults: the log is flushed to disk. One JSON line.

    .venv-peers/restate/bin/python -m bench.peers.restate --workload burst --n 5000

At most 200 calls are in flight (more made it slower); the service runs in a process of its own, which counts as client.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import restate

from bench.meter import Meter, contender_arguments, emit, latencies, quiet, rates

IN_FLIGHT = 200
MARK = os.environ.get("BENCH_MARK", "")
service = restate.Service("bench")
signals = restate.Workflow("signals")


@service.handler()
async def work(context: restate.Context, k: int) -> int:
    for i in range(k):
        await context.run_typed(f"s{i}", lambda: 1)
    return k


@service.handler()
async def recovering(context: restate.Context, k: int) -> int:
    for i in range(k):
        await context.run_typed(f"s{i}", lambda: 1)
    if os.environ.get("BENCH_FIRST"):
        Path(MARK).write_text("reached")
        await asyncio.sleep(10_000)

    def first_new() -> int:
        Path(MARK).write_text(str(time.time()))
        return 1

    await context.run_typed("new", first_new)
    return k


@signals.main()
async def waits(context: restate.WorkflowContext, _: int) -> float:
    await context.promise("p").value()
    return time.time()


@signals.handler()
async def fire(context: restate.WorkflowSharedContext, value: int) -> int:
    await context.promise("p").resolve(value)
    return value


def find_server() -> Path | None:
    found = sorted(Path(sys.prefix).glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    return found[0] if found else None


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def serve(port: int) -> None:
    import hypercorn
    from hypercorn.asyncio import serve as run

    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 2147483647
    config.keep_alive_timeout = 172800
    config.loglevel = "ERROR"
    asyncio.run(run(restate.app([service, signals]), config))


class Sitting:
    """A server, a service and a session to call them with."""

    def __init__(self, session: aiohttp.ClientSession, home: Path) -> None:
        self.session = session
        self.home = home
        self.mark = home / "mark"
        self.service_port, self.ingress, self.admin, self.node = free_ports(4)
        self.server: subprocess.Popen[bytes] | None = None
        self.service: subprocess.Popen[bytes] | None = None

    def start_server(self, program: Path) -> None:
        address = "127.0.0.1"
        settings = {
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_INGRESS__BIND_ADDRESS": f"{address}:{self.ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"{address}:{self.admin}",
            "RESTATE_BIND_ADDRESS": f"{address}:{self.node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://{address}:{self.node}",
            "RESTATE_ADVERTISED_HOST": address,
            "RESTATE_LOG_FILTER": "error",
        }
        command = [str(program), "--no-logo", "--base-dir", str(self.home), "--node-name", "n1"]
        with (self.home / "log").open("wb") as log:
            self.server = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)

    def start_service(self, first: str = "") -> None:
        command = [sys.executable, "-m", "bench.peers.restate", "--workload=latency", f"--role={self.service_port}"]
        self.service = subprocess.Popen(command, env={**os.environ, "BENCH_FIRST": first, "BENCH_MARK": str(self.mark)})

    async def call(self, path: str, body: Any) -> str:
        async with self.session.post(f"http://127.0.0.1:{self.ingress}/{path}", json=body) as response:
            text = await response.text()
            assert response.status < 300, text
            return text

    async def healthy(self) -> bool:
        async with self.session.get(f"http://127.0.0.1:{self.admin}/health") as response:
            return response.status == 200

    async def registered(self) -> bool:
        body = {"uri": f"http://127.0.0.1:{self.service_port}", "force": True}
        async with self.session.post(f"http://127.0.0.1:{self.admin}/deployments", json=body) as response:
            return response.status < 300

    def end(self) -> None:
        for process in (self.service, self.server):
            if process is not None:
                process.kill()
                process.wait()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if await condition():
                return
        except (aiohttp.ClientError, OSError):
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError("Restate did not become ready")


async def measure(s: Sitting, a: argparse.Namespace) -> dict[str, Any]:
    assert s.server is not None
    meter = Meter(s.server.pid, server_is_child=True)
    times: list[float] = []
    if a.workload == "latency":
        meter.start()
        for _ in range(a.n):
            began = time.perf_counter()
            await s.call("bench/work", 1)
            times.append(time.perf_counter() - began)
        return {**latencies(times), **rates(meter.stop(), a.n, 1)}
    if a.workload == "wake":
        meter.start()
        for i in range(a.n):
            waiting = asyncio.ensure_future(s.call(f"signals/k{i}/waits", 1))
            await asyncio.sleep(0.05)
            began = time.time()
            await s.call(f"signals/k{i}/fire", 1)
            times.append(float(await waiting) - began)
        return {**latencies(times, "send_recv_"), **meter.stop()}
    workflows, steps = (1, a.n) if a.workload == "sequential" else (a.n, a.k)
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one() -> None:
        async with gate:
            await s.call("bench/work", steps)

    meter.start()
    await asyncio.gather(*(one() for _ in range(workflows)))
    return rates(meter.stop(), workflows, steps)


async def recover(s: Sitting, a: argparse.Namespace) -> dict[str, Any]:
    """Counted from the start of the service's process, imports and all: the server pushes, nobody claims."""
    assert s.service is not None
    await s.call("bench/recovering/send", a.n)
    await until(lambda: asyncio.to_thread(s.mark.exists))
    await asyncio.sleep(0.3)
    s.service.kill()
    s.service.wait()
    s.mark.unlink()
    began = time.time()
    s.start_service()
    await until(lambda: asyncio.to_thread(s.mark.exists))
    await asyncio.sleep(0.2)
    return {"launch_to_first_new_s": round(float(s.mark.read_text()) - began, 3)}


async def run(a: argparse.Namespace) -> dict[str, Any]:
    program = find_server()
    if program is None:
        raise SystemExit("no Restate server in this environment")
    home = Path(tempfile.mkdtemp(prefix="bench-restate-"))
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        s = Sitting(session, home)
        try:
            s.start_server(program)
            s.start_service("1" if a.workload == "recover_one" else "")
            await until(s.healthy)
            await until(s.registered)
            await asyncio.sleep(2)
            for _ in range(20):
                await s.call("bench/work", 1)
            await asyncio.to_thread(quiet, a.quiet)
            return await (recover if a.workload == "recover_one" else measure)(s, a)
        finally:
            s.end()
            shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    a = contender_arguments(__doc__, ["latency", "burst", "sequential", "wake", "recover_one"]).parse_args()
    if a.role:
        serve(int(a.role))
    else:
        emit(asyncio.run(run(a)))


if __name__ == "__main__":
    main()
