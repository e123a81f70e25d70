-- Versions of the code and where new work goes. `$1` is the app. Whoever changes both locks the routing row first.

-- Locks where new work goes; a row made here says that the version `$2` is the first one.
-- name: routing_lock
insert into perdure.routing as r (app, current, revision, changed, because) values ($1, $2, 1, $3, $4)
on conflict (app) do update set revision = r.revision
returning current, ramping, percentage, revision, changed, because, watch, xmax::text = '0' as made

-- Where new work goes.
-- name: routing_get
select current, ramping, percentage, revision, changed, because, watch from perdure.routing where app = $1

-- Where new work goes, locked for whoever changes it.
-- name: routing_seen
select current, ramping, percentage, revision, changed, because, watch from perdure.routing where app = $1 for update

-- How often it was changed, and not again before this transaction has ended; nothing while somebody changes it, since who
-- does so may wait for rows that this transaction has.
-- name: routing_hold
select revision from perdure.routing where app = $1 for share skip locked

-- Changes where new work goes, if it is still as it was at the revision before.
-- name: routing_set
update perdure.routing
set current = $2, ramping = $3, percentage = $4, revision = $5, changed = $6, because = $7, watch = $8
where app = $1 and revision = $5 - 1 returning revision

-- Notes a launch. One that was deleted is there again.
-- name: version_launched
insert into perdure.version as v (app, name, fingerprints, first_launched, launched, since) values ($1, $2, $3, $4, $4, $4)
on conflict (app, name) do update set fingerprints = excluded.fingerprints, launched = excluded.launched,
    first_launched = case when v.first_launched = 0 then excluded.first_launched else v.first_launched end,
    since = case when v.deleted is null then v.since else excluded.since end, deleted = null

-- Notes that a version gets new work (`$4`) or loses it, by an operator (`$5`) or a launch.
-- name: version_mark
insert into perdure.version as v (app, name, fingerprints, first_launched, launched, since, routed, withdrawn)
values ($1, $2, '{}', 0, 0, $3, true, $5::boolean and not $4::boolean)
on conflict (app, name) do update set since = excluded.since, routed = true,
    withdrawn = case when $5::boolean then excluded.withdrawn else v.withdrawn end

-- All versions, the latest launched first.
-- name: version_list
select name, fingerprints, first_launched, launched, withdrawn, since, routed, metadata, deleted from perdure.version
where app = $1 order by launched desc, name

-- One version.
-- name: version_get
select name, fingerprints, first_launched, launched, withdrawn, since, routed, metadata, deleted from perdure.version
where app = $1 and name = $2

-- What people noted of a version.
-- name: version_metadata
update perdure.version set metadata = $3 where app = $1 and name = $2

-- Deletes a version: what is left of it is that it was there, and what an operator said of it.
-- name: version_delete
update perdure.version set metadata = '{}', deleted = $3 where app = $1 and name = $2

-- Whether an executor of version `$2` is alive at `$3`, those in `$4` apart.
-- name: version_served
select exists (
    select from perdure.incarnation
    where app = $1 and version = $2 and state = 'alive' and lease_until > $3 and id <> all($4::bytea[]))

-- Open work by version: up to `$2` rows counted of those that nobody holds, and of those that each executor holds.
-- Versions are found by hopping along the index from one to the next.
-- name: unfinished
with recursive @free,
held as (
    select i.id as owner, (select w.version from perdure.workflow w
        where w.app = $1 and w.owner = i.id and w.status < 5 order by w.version, w.lane, w.until limit 1) as version
    from perdure.incarnation i where i.app = $1
    union all
    select held.owner, (select w.version from perdure.workflow w
        where w.app = $1 and w.owner = held.owner and w.version > held.version and w.status < 5
        order by w.version, w.lane, w.until limit 1)
    from held where held.version is not null),
counted as (
    select free.version, c.n, c.oldest
    from free cross join lateral (
        select count(*) as n, min(created) as oldest from (
            select w.created from perdure.workflow w
            where w.app = $1 and w.owner is null and w.version = free.version and w.status < 5
            order by w.owner, w.version, w.lane, w.until limit $2) x) c
    where free.version <> ''
    union all
    select held.version, c.n, c.oldest
    from held cross join lateral (
        select count(*) as n, min(created) as oldest from (
            select w.created from perdure.workflow w
            where w.app = $1 and w.owner = held.owner and w.version = held.version and w.status < 5
            order by w.version, w.lane, w.until limit $2) x) c
    where held.version <> '')
select version, least(sum(n), $2)::bigint, min(oldest) from counted group by version order by 3, 1

-- Gives version `$2` to up to `$3` workflows that go with the current version (`$4`: of these names) and that nobody
-- holds, or one of `$8` does (which writes nothing any more); if there is a ramp, those whose ids lie below `$5`, or (not `$9`) above. What is held because the code did not match (`$6`) is queued with it.
-- name: upgrade
with recursive t as materialized (
    select coalesce($7::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
@free,
picked as materialized (
    select w.id
    from free cross join lateral (
        select id from perdure.workflow
        where app = $1 and owner is null and version = free.version and status < 5 and versioning = 2
            and name = any($4::text[]) and reason is distinct from 'paused'
            and ($5::bytea is null or (substr(sha256(convert_to($1 || id, 'UTF8')), 1, 8) < $5::bytea) = $9::boolean)
        order by owner, version, lane, until limit $3 for no key update skip locked) w
    where free.version not in ('', $2) limit $3),
orphaned as materialized (
    select w.id
    from unnest($8::bytea[]) u (owner) cross join lateral (
        select id from perdure.workflow
        where app = $1 and owner = u.owner and status = 2 and versioning = 2 and name = any($4::text[])
            and version not in ('', $2)
            and ($5::bytea is null or (substr(sha256(convert_to($1 || id, 'UTF8')), 1, 8) < $5::bytea) = $9::boolean)
        order by version, lane, until limit $3 for no key update skip locked) w
    limit $3)
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
select $1, x.id, 1, '', '', '', 1, 0, 0, '', ''
from (select id from picked union all select id from orphaned order by id limit $3) x
on conflict (app, id) do update
set version = $2, updated = (select now from t),
    status = case when w.reason = any($6::text[]) then 1 else w.status end,
    until = case when w.reason = any($6::text[]) then (select now from t) else w.until end,
    claim = case when w.status = 2 or w.reason = any($6::text[]) then null else w.claim end,
    detail = case when w.reason = any($6::text[]) then '' else w.detail end,
    lane = case when w.reason = any($6::text[]) then @lane else w.lane end,
    reason = case when w.reason = any($6::text[]) then null else w.reason end
returning w.id

-- Notes what the code declares of workflows held under `$2` that were started without it: `$4`, and their timeouts `$5`.
-- name: declare
with held as materialized (
    select w.id, u.versioning, u.timeout
    from unnest($3::text[], $4::smallint[], $5::bigint[]) with ordinality u (id, versioning, timeout, n)
    cross join lateral (
        select id, claim, versioning, timeout, started from perdure.workflow where app = $1 and id = u.id
        for no key update) w
    where w.claim = $2
        and (w.versioning = 0 and u.versioning <> 0
            or w.timeout is null and u.timeout is not null and w.started is not null))
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
    versioning, timeout)
select $1, id, 1, '', '', '', 1, 0, 0, '', '', versioning, timeout from held
on conflict (app, id) do update set
    versioning = case w.versioning when 0 then excluded.versioning else w.versioning end,
    timeout = coalesce(w.timeout, excluded.timeout),
    deadline = case when w.timeout is null and excluded.timeout is not null
        then least(w.deadline, greatest(w.started, w.created) + excluded.timeout) else w.deadline end
returning w.id

-- Notes the schemes of a version's processes.
-- name: version_note_schemes
update perdure.version set schemes = $3 where app = $1 and name = $2 and schemes <> $3

-- The schemes of all versions that have some, the latest launched first.
-- name: version_schemes
select name, schemes from perdure.version where app = $1 and schemes <> '{}' order by launched desc, name
