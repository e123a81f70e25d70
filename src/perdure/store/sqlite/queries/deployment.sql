-- Deployments: what an operator sees and changes of an app's versions. ?1 is the app.

-- Notes a change of the deployment.
-- name: change_put
insert into deployment_change (app, revision, at, kind, version, by, reason, current, ramping, percentage, nonce)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)

-- The latest changes.
-- name: change_list
select revision, at, kind, version, by, reason, current, ramping, percentage from deployment_change
where app = ?1 order by revision desc limit ?2

-- The change after revision ?2 that an order made.
-- name: change_made
select revision from deployment_change where app = ?1 and revision > ?2 and nonce = ?3

-- The executors of version ?2 whose lease still runs at ?3.
-- name: version_executors
select executor, state, id from incarnation
where app = ?1 and version = ?2 and state in ('alive', 'draining') and lease_until > ?3 order by executor

-- Counts open work of a version and a behaviour (?3) that nobody holds, up to ?4.
-- name: open_work_free
select count(*) from (
    select 1 from workflow indexed by workflow_open
    where app = ?1 and owner is null and version = ?2 and status < 5 and versioning = ?3 limit ?4)

-- The same of work that ?5 holds.
-- name: open_work_held
select count(*) from (
    select 1 from workflow indexed by workflow_open
    where app = ?1 and owner = ?5 and version = ?2 and status < 5 and versioning = ?3 limit ?4)

-- Of the latest ?4 workflows created since ?3: how many version ?2 has begun; how many of these have ended by
-- themselves; have failed or timed out; have a problem.
-- name: version_sample
select count(*), count(*) filter (where status in (5, 6, 9)), count(*) filter (where status in (6, 9)),
    count(*) filter (where status < 5 and problem is not null)
from (
    select version, epoch, status, problem from workflow indexed by workflow_created
    where app = ?1 and created >= ?3 order by created desc limit ?4)
where version = ?2 and (status > 1 or epoch > 0)
