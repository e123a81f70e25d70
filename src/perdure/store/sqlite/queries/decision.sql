-- What was decided about interrupted runs. ?1 is the app, ?2 the workflow id.

-- Writes down a decision over the default one of the same claim; `at` stays, so that a repeated write changes nothing.
-- name: decision_put
insert into decision (app, id, run, claim, at, cause, decision, policy, because, parameters, evidence, executor)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
on conflict do update set cause = excluded.cause, decision = excluded.decision, policy = excluded.policy,
    because = excluded.because, parameters = excluded.parameters,
    evidence = case when excluded.evidence = cast('{}' as blob) then decision.evidence else excluded.evidence end,
    executor = excluded.executor

-- The default decision about a run that was just taken over from the dead ?4.
-- name: decision_default
insert into decision (app, id, run, claim, at, cause, decision, policy, because, parameters, evidence, executor)
select f.app, f.id, f.run, f.claim, ?3, 1, 'resume', '', '', null,
    cast(json_object('owner', lower(hex(?4)),
        'executor', coalesce((select i.executor from incarnation i where i.id = ?4), ''),
        'attempt', f.attempts) as blob),
    coalesce((select i.executor from incarnation i where i.id = f.owner), '')
from workflow f where f.app = ?1 and f.id = ?2
on conflict do nothing

-- All decisions about a workflow, in order.
-- name: decision_of
select id, run, claim, at, cause, decision, policy, because, parameters, evidence, executor
from decision where app = ?1 and id = ?2 order by run, at, claim

-- Whether a first try of this unit has deleted the workflow.
-- name: decision_deleted
select 1 from decision where app = ?1 and id = ?2 and run = ?3 and claim = ?4 and decision = 'delete'

-- Moves what was just released to version ?3: nothing is left to be decided about it.
-- name: workflow_moved
update workflow set version = ?3, cause = 0 where app = ?1 and id = ?2
