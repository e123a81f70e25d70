-- Deployments: what an operator sees and changes of an app's versions. `$1` is the app.

-- Notes a change of the deployment.
-- name: change_put
insert into perdure.deployment_change (app, revision, at, kind, version, by, reason, current, ramping, percentage, nonce)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)

-- The latest changes.
-- name: change_list
select revision, at, kind, version, by, reason, current, ramping, percentage from perdure.deployment_change
where app = $1 order by revision desc limit $2

-- The change after revision `$2` that an order made.
-- name: change_made
select revision from perdure.deployment_change where app = $1 and revision > $2 and nonce = $3

-- The executors of version `$2` whose lease still runs at `$3`, those in `$4` apart.
-- name: version_executors
select executor, state from perdure.incarnation
where app = $1 and version = $2 and state in ('alive', 'draining') and lease_until > $3 and id <> all($4::bytea[])
order by executor

-- Open work by version (of `$2`, or of all) and behaviour: up to `$3` rows counted of those that nobody holds, and of
-- those that each executor holds. Owners and versions are found by hopping along the index.
-- name: open_work
with recursive @owners,
@free,
held (owner, version) as (
    select o.owner, (select w.version from perdure.workflow w
        where w.app = $1 and w.owner = o.owner and w.status < 5 order by w.version, w.lane, w.until limit 1)
    from o where o.owner is not null
    union all
    select held.owner, (select w.version from perdure.workflow w
        where w.app = $1 and w.owner = held.owner and w.version > held.version and w.status < 5
        order by w.version, w.lane, w.until limit 1)
    from held where held.version is not null),
counted as (
    select free.version, b.code, c.n
    from free cross join (values (0), (1), (2)) b (code) cross join lateral (
        select count(*) as n from (
            select from perdure.workflow w
            where w.app = $1 and w.owner is null and w.version = free.version and w.status < 5 and w.versioning = b.code
            order by w.owner, w.version, w.lane, w.until limit $3) x) c
    where free.version <> '' and ($2::text is null or free.version = $2)
    union all
    select held.version, b.code, c.n
    from held cross join (values (0), (1), (2)) b (code) cross join lateral (
        select count(*) as n from (
            select from perdure.workflow w
            where w.app = $1 and w.owner = held.owner and w.version = held.version and w.status < 5
                and w.versioning = b.code
            order by w.version, w.lane, w.until limit $3) x) c
    where held.version <> '' and ($2::text is null or held.version = $2))
select version, code, sum(n)::bigint from counted where n > 0 group by version, code order by version, code

-- Of the latest `$4` workflows created since `$3`: how many version `$2` has begun; how many of these have ended by
-- themselves; have failed or timed out; have a problem.
-- name: version_sample
select count(*), count(*) filter (where status in (5, 6, 9)), count(*) filter (where status in (6, 9)),
    count(*) filter (where status < 5 and problem is not null)
from (
    select version, epoch, status, problem from perdure.workflow
    where app = $1 and created >= 0 and created >= $3 order by created desc limit $4) x
where version = $2 and (status > 1 or epoch > 0)
