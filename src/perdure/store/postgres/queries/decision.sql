-- What was decided about interrupted runs. `$1` is the app, `$2` the workflow id.

-- Writes down a decision over the default one of the same claim; `at` stays, so that a repeated write changes nothing.
-- name: decision_put
insert into perdure.decision (app, id, run, claim, at, cause, decision, policy, because, parameters, evidence, executor)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict (app, id, run, claim) do update
set cause = excluded.cause, decision = excluded.decision, policy = excluded.policy, because = excluded.because,
    parameters = excluded.parameters, executor = excluded.executor,
    evidence = case when excluded.evidence = '{}' then decision.evidence else excluded.evidence end

-- All decisions about workflows, in order.
-- name: decisions
select d.id, d.run, d.claim, d.at, d.cause, d.decision, d.policy, d.because, d.parameters, d.evidence, d.executor
from unnest($2::text[]) u (id)
cross join lateral (
    select * from perdure.decision where app = $1 and id = u.id order by run, at, claim offset 0) d

-- Whether a first try of this unit has deleted the workflow.
-- name: decision_deleted
select 1 from perdure.decision where app = $1 and id = $2 and run = $3 and claim = $4 and decision = 'delete'

-- Moves what was just released to version `$3`: nothing is left to be decided about it.
-- name: workflow_moved
update perdure.workflow set version = $3, cause = 0 where app = $1 and id = $2
