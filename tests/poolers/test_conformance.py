"""What is promised of every store, of Postgres behind a transaction pooler: the same tests, by way of PgBouncer."""

from __future__ import annotations

import pytest

from tests.store import (
    test_batches,
    test_claim,
    test_commands,
    test_commit,
    test_decisions,
    test_deployments,
    test_executors,
    test_moves,
    test_reads,
    test_repeats,
    test_rewind,
    test_strays,
    test_versions,
)

pytestmark = [pytest.mark.postgres, pytest.mark.sampled(20)]

for _module in (
    test_batches, test_claim, test_commands, test_commit, test_decisions, test_deployments, test_executors, test_moves,
    test_reads, test_repeats, test_rewind, test_strays, test_versions,
):  # fmt: skip
    _mark = getattr(_module, "pytestmark", lambda test: test)  # what all tests of that file go with
    globals().update({name: _mark(test) for name, test in vars(_module).items() if name.startswith("test_")})
