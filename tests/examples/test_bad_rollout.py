"""The runbook for a bad rollout: its page, run as it stands, and its drill, small; each with real processes.

The large one is ``make drill``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from examples.bad_rollout import bank
from examples.bad_rollout.commands import Operator
from examples.bad_rollout.customers import connect, orders, place, until_none
from examples.bad_rollout.drill import BACKLOG

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guide" / "bad-rollout.md"
BLOCK = re.compile(r"^```(?P<language>sh|output)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "@@@"

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.timeout(300)]


async def test_the_drill(database: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.bad_rollout.drill", "--workflows", "200", "--database", database,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    told = out.decode()
    assert process.returncode == 0, told
    assert "200  of 200 workflows have completed with the right result" in told, told
    assert "batches killed in the middle" in told


def blocks(page: str) -> list[tuple[int, str, str]]:
    """(line, ``sh`` or ``output``, text) of each block, in order."""
    return [
        (page.count("\n", 0, found.start()) + 2, found["language"], found["text"]) for found in BLOCK.finditer(page)
    ]


def script(page: str, *, jq: bool) -> str:
    """One program of all shell blocks, each announced by its line; without ``jq``, those that need it are left out."""
    parts = ["set -eu\n"]
    for line, language, text in blocks(page):
        if language == "sh" and (jq or not re.search(r"\bjq\b", text)):
            parts.append(f"echo; echo '{MARK} {line}'\n{text}")
    return "".join(parts)


def expected(page: str) -> dict[int, str]:
    """What each shell block must print that an ``output`` block follows, by its line."""
    found: dict[int, str] = {}
    last = 0
    for line, language, text in blocks(page):
        if language == "sh":
            last = line
        else:
            found[last] = text.strip()
    return found


def printed(out: str) -> dict[int, str]:
    """What each block printed, by its line."""
    parts = re.split(rf"^{MARK} (\d+)$", out, flags=re.MULTILINE)
    return {int(line): text.strip() for line, text in zip(parts[1::2], parts[2::2], strict=True)}


async def test_the_page(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.open_book(tmp_path / "bank.db")
    monkeypatch.setenv("BANK_BOOK", str(tmp_path / "bank.db"))
    operator = Operator(database, tmp_path)
    async with operator.executor("v1"), operator.executor("v2", "--exit-when-drained"):
        await operator.do("deployment", "set-ramping-version", "v2", "--percentage", "40", twice=False)
        async with connect(database) as client:
            await place(client, orders(0, 60))
            await until_none(client, BACKLOG)
        page = PAGE.read_text(encoding="utf-8")
        has_jq = shutil.which("jq") is not None
        code, out = await run(script(page, jq=has_jq), operator.environment, tmp_path / "out")
    told = printed(out)
    assert code == 0, f"{PAGE.name}:{max(told, default=0)}: the block that begins here failed\n{out}"
    for line, text in expected(page).items():
        if line in told:
            assert told[line] == text, f"{PAGE.name}:{line}: the page shows another output"
    assert len(told) >= len([1 for _, language, _ in blocks(page) if language == "sh"]) - (0 if has_jq else 2)


async def run(text: str, environment: dict[str, str], into: Path) -> tuple[int, str]:
    """Run a shell program in a process group of its own, which ends with it. Its output goes to a file."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with into.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", text, cwd=ROOT, env={**environment, "PATH": path}, start_new_session=True, stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code, await asyncio.to_thread(into.read_text, encoding="utf-8")


def test_the_finder_of_shell_blocks() -> None:
    page = "a\n\n```sh\nls\n```\n\n```output\nx\n```\n\n```text\nno\n```\n```sh\nls | jq .\n```\n"
    assert blocks(page) == [(4, "sh", "ls\n"), (8, "output", "x\n"), (15, "sh", "ls | jq .\n")]
    assert script(page, jq=False) == "set -eu\necho; echo '@@@ 4'\nls\n"
    assert "jq ." in script(page, jq=True)
    assert expected(page) == {4: "x"}
    assert printed("\n@@@ 4\nx\n\n@@@ 15\n\n") == {4: "x", 15: ""}
