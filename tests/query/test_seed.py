"""The queries of the runbook for a bad rollout, as they stand in it, find what they are meant to find."""

from __future__ import annotations

import pytest

from perdure.model.problems import ProblemKind
from perdure.model.states import Reason, Status
from perdure.query.read import read_query
from perdure.store.base import Store
from tests.query.rows import T, held, put
from tests.store.conftest import MakeStore

APP = "YourDeploymentName"
BAD, GOOD = "YourBadBuildID", "YourPreviousBuildID"

# A shell takes the backslash and the end of its line out.
QUERIES = {
    "still retrying": r"""TemporalWorkerDeploymentVersion='YourDeploymentName:YourBadBuildID' \
    AND ExecutionStatus='Running' \
    AND TemporalReportedProblems IN ('category=WorkflowTaskFailed', 'category=WorkflowTaskTimedOut')""",
    "failed": r"""TemporalWorkerDeploymentVersion='YourDeploymentName:YourBadBuildID' \
    AND (ExecutionStatus='Failed' OR ExecutionStatus='TimedOut')""",
    "of a type, still retrying": r"""TemporalWorkerDeploymentVersion='YourDeploymentName:YourBadBuildID' \
        AND ExecutionStatus='Running' \
        AND WorkflowType='YourWorkflowType' \
        AND TemporalReportedProblems IN ('category=WorkflowTaskFailed', 'category=WorkflowTaskTimedOut')""",
    "of a type, closed": r"""TemporalWorkerDeploymentVersion='YourDeploymentName:YourBadBuildID' \
        AND (ExecutionStatus='Completed' OR ExecutionStatus='Failed') \
        AND WorkflowType='YourWorkflowType'""",
}
FOUND = {
    "still retrying": {"lost", "lost-other", "undecodable", "uncoded", "poison", "stuck"},
    "failed": {"failed", "failed-other", "late"},
    "of a type, still retrying": {"lost", "undecodable", "uncoded", "poison", "stuck"},
    "of a type, closed": {"failed", "done"},
}
# In words of our own.
OURS = {
    "still retrying": f"version = '{BAD}' AND status = open AND problem IS NOT NULL",
    "failed": f"version = '{BAD}' AND status IN (failed, timed_out)",
    "of a type, still retrying": f"version = '{BAD}' AND type = 'YourWorkflowType' AND problem IS NOT NULL",
    "of a type, closed": f"version = '{BAD}' AND type = 'YourWorkflowType' AND status IN (completed, failed)",
}


@pytest.fixture
async def affected(make_store: MakeStore) -> Store:
    store = await make_store(APP)
    kinds = {
        "lost": {"status": Status.HELD, "reason": Reason.NONDETERMINISM, "problem": ProblemKind.NONDETERMINISM},
        "lost-other": {"status": Status.WAITING, "problem": ProblemKind.STEP_FAILED, "name": "Other"},
        "undecodable": {"status": Status.HELD, "reason": Reason.UNDECODABLE, "problem": ProblemKind.UNDECODABLE},
        "uncoded": {"status": Status.HELD, "reason": Reason.NO_CODE, "problem": ProblemKind.NO_CODE},
        "poison": {"status": Status.HELD, "reason": Reason.RECOVERY_LIMIT, "problem": ProblemKind.EXECUTOR_DIED},
        "stuck": {"status": Status.QUEUED, "problem": ProblemKind.TURN_TIMEOUT},
        "paused": {"status": Status.HELD, "reason": Reason.PAUSED},
        "asleep": {"status": Status.WAITING},
        "failed": {"status": Status.FAILED, "closed": T, "problem": ProblemKind.STEP_FAILED},
        "failed-other": {"status": Status.FAILED, "closed": T, "name": "Other"},
        "late": {"status": Status.TIMED_OUT, "closed": T},
        "done": {"status": Status.COMPLETED, "closed": T},
        "ended": {"status": Status.TERMINATED, "closed": T},
    }
    rows = [held(id, **{"name": "YourWorkflowType", "version": BAD, **kind}) for id, kind in kinds.items()]
    rows += [held(f"good-{id}", **{"name": "YourWorkflowType", "version": GOOD, **kind}) for id, kind in kinds.items()]
    await put(store, rows)
    return store


@pytest.mark.parametrize("which", QUERIES)
async def test_the_runbooks_queries_find_what_they_mean(affected: Store, which: str) -> None:
    for text in (
        QUERIES[which].replace("\\\n", ""), QUERIES[which], QUERIES[which].replace("Temporal", ""), OURS[which],
    ):  # fmt: skip
        found = await affected.list(read_query(text, APP))
        assert {row.id for row in found.rows} == FOUND[which], text
        [(_, count)] = await affected.count(read_query(text, APP, use="count"))
        assert count == len(FOUND[which])


async def test_the_runbooks_filters_one_by_one(affected: Store) -> None:
    async def ids(text: str) -> set[str]:
        return {row.id for row in (await affected.list(read_query(text, APP), limit=1000)).rows}

    assert await ids("TemporalReportedProblems = 'category=WorkflowTaskTimedOut'") == {
        "poison", "good-poison", "stuck", "good-stuck",
    }  # fmt: skip
    assert len(await ids("ReportedProblems = 'category=WorkflowTaskFailed'")) == 8
    assert len(await ids("WorkflowType = 'OrderProcessing'")) == 0
    assert len(await ids("ExecutionStatus = 'Running'")) == 16
    assert await ids(f"TemporalWorkerDeploymentVersion = '{APP}:{GOOD}' AND WorkflowId STARTS_WITH 'good-l'") == {
        "good-lost", "good-lost-other", "good-late",
    }  # fmt: skip
    assert len(await ids(f"TemporalWorkerDeploymentVersion NOT IN ('{APP}:{BAD}')")) == 13
