"""Without a Postgres the tests that need one fail: nobody takes a skipped half of the suite for a passed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, pytest
from tests import postgres
postgres.candidates = lambda: iter(())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/store/test_executors.py"]))
"""


def test_no_postgres_is_an_error_that_says_what_to_do() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PERDURE_TEST_POSTGRES"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "error" in last
    assert "skipped" not in last
    assert (
        "No Postgres for the tests: set PERDURE_TEST_POSTGRES to a URL, install the postgresql package" in done.stdout
    )
