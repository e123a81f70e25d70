"""How much of a queue is here, by what its executor knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from perdure.model.queues import Limits, QueueRow
from perdure.model.records import Claimed, WorkflowRow
from perdure.model.states import Status
from perdure.runtime.queues import Queues


def test_what_is_claimed_and_not_begun_yet_counts_whoever_asks_meanwhile() -> None:
    """Recovery asks what queues let this executor have, while a look reads the histories of what it has let in."""
    host: Any = SimpleNamespace(executions={}, deciding={})
    queues = Queues(host, None)
    limits = Limits(worker_concurrency=2)
    queues._known = {"q": QueueRow(name="q", limits=limits, paused=False, cursor="", declared=None, live={}, changed=0)}
    claimed = WorkflowRow(
        id="a", run=1, lineage=b"", name="work", status=Status.RUNNING, version="v1", created=0, updated=0, queue="q"
    )
    with queues.coming([Claimed(claimed, b"")]):
        assert [queues.let() for _ in range(2)] == [((), (("q", 1),))] * 2
        host.executions["a"] = None
    assert queues.let() == ((), (("q", 1),))
    host.executions.clear()
    assert queues.let() == ((), (("q", 2),))
