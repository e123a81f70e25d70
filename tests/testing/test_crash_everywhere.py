"""The marker, as users put it on their tests; and that it finds what is not right."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.house.test_docs import ROOT, program

HEAD = """
    from collections.abc import AsyncIterator
    from datetime import timedelta
    import pytest
    from perdure import App, Topic, recv
    from perdure.testing import Harness, harness

    shop = App("shop")
    paid = Topic[bool]("paid")
    bank: list[str] = []

    @shop.step
    async def charge(order: str) -> str:
        return "charged"

    @shop.workflow
    async def checkout(order: str) -> str:
        charged = await charge(order)
        return charged if await recv(paid, timeout=timedelta(minutes=30)) else "late"

    @pytest.fixture
    async def h() -> AsyncIterator[Harness]:
        async with harness(shop) as h:
            yield h
"""


def run(folder: Path, test: str) -> tuple[int, str]:
    return run_file(folder, textwrap.dedent(HEAD) + textwrap.dedent(test))


def run_file(folder: Path, source: str, of: str = "") -> tuple[int, str]:
    path = folder / "test_it.py"
    path.write_text(source)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:perdure",
        "-p",
        "perdure.testing.plugin",
        "-o",
        "asyncio_mode=auto",
        f"{path}{of}",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    return done.returncode, done.stdout + done.stderr


def test_the_example_of_the_guide_passes(tmp_path: Path) -> None:
    page = program(ROOT / "docs" / "guide" / "testing.md")
    code, said = run_file(tmp_path, page, "::test_checkout")  # the others run as the page is read, by themselves
    assert code == 0, said
    assert re.search(r"\n[1-9]\d* runs with a crash at one of [1-9]", said), said


def test_a_good_test_passes(tmp_path: Path) -> None:
    code, said = run(
        tmp_path,
        """
        @pytest.mark.perdure_crash_everywhere
        async def test_paid(h: Harness) -> None:
            keys: set[str] = set()
            async def fake(order: str) -> str:
                keys.add(order)
                return "fake"
            h.replace(charge, fake)
            handle = await checkout.options(id="o").start("o")
            await handle.send(True, paid)
            assert await handle.result() == "fake"
            assert keys == {"o"}

        @pytest.mark.perdure_crash_everywhere
        async def test_late(h: Harness) -> None:
            handle = await checkout.start("o")
            await h.advance(timedelta(minutes=31))
            assert await handle.result() == "late"
        """,
    )
    assert code == 0, said
    assert "2 passed" in said
    assert "runs with a crash at one of" in said


def test_what_is_not_right_is_found_and_told(tmp_path: Path) -> None:
    code, said = run(
        tmp_path,
        """
        @pytest.mark.perdure_crash_everywhere
        async def test_charged_once(h: Harness) -> None:
            charges: list[str] = []
            async def fake(order: str) -> str:
                charges.append(order)       # not idempotent: a crash before the record does it again
                return "fake"
            h.replace(charge, fake)
            handle = await checkout.start("o")
            await handle.send(True, paid)
            await handle.result()
            assert len(charges) == 1
        """,
    )
    assert code == 1, said
    assert "with a crash " in said
    assert "at write " in said


def test_misuse_is_told(tmp_path: Path) -> None:
    code, said = run(
        tmp_path,
        """
        @pytest.mark.perdure_crash_everywhere
        async def test_nothing() -> None: ...
        """,
    )
    assert code == 1, said
    assert "needs exactly one harness" in said
