"""The processes of the drill: executors, and the operator's commands, each of which is run twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from examples.bad_rollout import tables

ROOT = Path(__file__).resolve().parents[2]
PERDURE = (sys.executable, "-m", "perdure.cli")
PATIENCE = 60.0  # seconds that an executor may take to start or to end
SHOWN_MAX = 12  # lines of an answer


class Executor:
    """``perdure run`` of one version, as a process."""

    def __init__(self, version: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.version = version
        self.process = process
        self.log = log

    async def end(self) -> int:
        """Wait until it has ended by itself. Its exit code."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


class Operator:
    """Whoever has the runbook in hand: gives commands, checks what a second time changes, counts."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")},
            "PERDURE_DATABASE_URL": database,
            "BANK_BOOK": str(folder / "bank.db"),
            "NO_COLOR": "1",
        }
        self.commands = 0
        self.audits = 0
        self.wrong: list[str] = []

    def check(self, good: bool, claim: str) -> None:
        """Note what is not as it should be."""
        if not good:
            self.wrong.append(claim)
            print(f"  NOT SO: {claim}", flush=True)

    async def do(self, *args: str, code: int = 0, twice: bool = True) -> Any:
        """Run a command, once more, and compare all tables before and after the second time. Its JSON document."""
        print(f"$ perdure {typed(args)}", flush=True)
        document = await self._run(args, code)
        if twice:
            before = await tables.quiet(self.database)
            again = await self._run(args, code)
            after = await tables.read(self.database)
            changed = tables.changes(before, after)
            self.commands += 1
            self.audits += tables.audits(before, after)
            self.check(not changed, f"the second `perdure {typed(args)}` changed:\n    " + "\n    ".join(changed[:10]))
            said = "nothing" if not tables.audits(before, after) else "nothing but a line of audit"
            print(f"  {_told(document)}\n  again: {_told(again)}; {said} has changed", flush=True)
        else:
            print(f"  {_told(document)}", flush=True)
        return document

    async def _run(self, args: tuple[str, ...], code: int) -> Any:
        process = await asyncio.create_subprocess_exec(
            *PERDURE, *args, "--output", "json", cwd=ROOT, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await process.communicate()
        self.check(
            process.returncode == code,
            f"`perdure {typed(args)}` ended with {process.returncode}, not {code}: {errors.decode()[-2000:]}",
        )
        return json.loads(out) if out else {}

    async def killed(self, *args: str) -> int:
        """Run a batch, SIGKILL its process when a third is done. How many of its workflows were left."""
        print(f"$ perdure {typed(args)}", flush=True)
        process = await asyncio.create_subprocess_exec(
            *PERDURE, *args, "--output", "jsonl", cwd=ROOT, env=self.environment, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        left = 0
        while line := await process.stdout.readline():
            told = json.loads(line)["batch"]
            left = told["waiting"]
            if left and told["done"] * 3 >= told["total"]:
                process.kill()
                break
        status = await process.wait()
        self.check(status == -signal.SIGKILL and left > 0, f"it was killed in the middle ({status}, {left} left)")
        print(f"  kill -9 {process.pid}: {left} are left", flush=True)
        return left

    @contextlib.asynccontextmanager
    async def executor(self, version: str, *more: str) -> AsyncGenerator[Executor]:
        """``perdure run`` of that version; it is asked to end when this is left, if it has not."""
        log = self.folder / f"{version}.log"
        app = f"examples.bad_rollout.{version}:shop"
        print(f"$ PERDURE_VERSION={version} perdure run {typed((app, *more))} &", flush=True)
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *PERDURE, "run", app, *more, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env={**self.environment, "PERDURE_VERSION": version, "PERDURE_EXECUTOR_ID": version},
            )  # fmt: skip
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            if not line:
                raise RuntimeError(f"version {version} has not started: {log.read_text()}")
            yield Executor(version, process, log)
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), PATIENCE)
            if process.returncode is None:
                process.kill()
                await process.wait()


def _told(document: Any) -> str:
    """An answer in a line."""
    for noun in ("change", "plan", "batch", "count", "deployment_version"):
        if noun in document:
            found = document[noun]
            if noun == "change":
                return str(found["message"])
            if noun == "batch":
                return "{done} done, {skipped} skipped, {failed} failed, {waiting} left".format(**found)
            if noun == "plan":
                verdicts = sorted(sample["verdict"] for sample in found["samples"])
                return f"{found['total']} workflows" + (f"; samples: {', '.join(verdicts)}" if verdicts else "")
            if noun == "deployment_version":
                return f"{found['version']} is {found['state']}"
            return str(found)
    return f"{len(next((v for v in document.values() if isinstance(v, list)), []))} found"


def typed(args: Sequence[str]) -> str:
    """A command as a person would type it."""
    return " ".join(f'"{arg}"' if "'" in arg and '"' not in arg else shlex.quote(arg) for arg in args)
