-- Unfinished work of versions that nobody runs any more. `$1` is the app.

-- Of the versions in `$2`, up to `$4` workflows that nobody holds: all of them, or those that may move to version `$3`
-- and have not been tried there as they stand.
-- name: stray_list
select @row
from unnest($2::text[]) v (version)
cross join lateral (
    select f.id from perdure.workflow f
    where f.app = $1 and f.owner is null and f.version = v.version and f.status < 5
        and ($3::text is null
            or f.versioning <> 1
            and (f.status < 4 or f.reason in ('nondeterminism', 'no_code', 'undecodable', 'crashed'))
            and not exists (
                select from (
                    select run, last_seq, version from perdure.trial where app = $1 and id = f.id offset 0) t
                where t.run = f.run and t.last_seq = f.last_seq and t.version = $3))
    order by f.owner, f.version, f.lane, f.until limit $4) x
cross join lateral (select * from perdure.workflow where app = $1 and id = x.id offset 0) c
limit $4

-- Those that somebody has told to cancel, of the versions in `$2`, which nobody holds.
-- name: stray_commanded
select w.dest, w.cancel
from (select dest, min(cancel) as cancel from perdure.wake where app = $1 and cancel is not null group by dest) w
cross join lateral (select owner, version, status from perdure.workflow where app = $1 and id = w.dest offset 0) f
where f.owner is null and f.status < 5 and f.version = any($2::text[])
order by w.dest

-- Moves the runs `$2`, `$3` to version `$7`, if they stand as they were seen: of version `$4`, last held under `$5`,
-- with so many records (`$6`). Claimable at once; no late write of who held them passes any more.
-- name: stray_adopt
with t as materialized (
    select coalesce($8::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
picked as materialized (
    select w.id
    from unnest($2::text[], $3::int[], $4::text[], $5::bytea[], $6::int[]) u (id, run, version, claim, seq)
    cross join lateral (
        select id from perdure.workflow
        where app = $1 and id = u.id and run = u.run and version || '' = u.version and owner is null and status + 0 < 5
            and claim is not distinct from u.claim and last_seq = u.seq
        for no key update) w),
forgotten as (
    delete from perdure.trial t where t.ctid = any(array(
        select x.ctid from picked cross join lateral (
            select ctid from perdure.trial where app = $1 and id = picked.id offset 0) x)))
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
select $1, picked.id, 1, '', '', '', 1, 0, 0, '', '' from picked
on conflict (app, id) do update
set version = $7, status = case w.status when 4 then 1 else w.status end, reason = null, claim = null,
    detail = case w.status when 4 then '' else w.detail end, updated = (select now from t),
    until = case when w.status in (3, 4) then (select now from t) else w.until end,
    lane = case w.status when 4 then @lane else w.lane end
returning w.id

-- Queues what the incarnations in `$2` were running, up to `$4`, of versions other than those in `$3`: a death each.
-- Of none are those from before there were versions.
-- name: stray_release
with t as materialized (
    select coalesce($5::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
picked as materialized (
    select w.id, u.owner
    from (
        select x.owner from unnest($2::bytea[]) x (owner)
        where not exists (select from perdure.incarnation r
            where r.id = x.owner and r.app = $1 and r.state = 'released' and r.heir is not null)) u
    cross join lateral (
        select id from perdure.workflow
        where app = $1 and owner = u.owner and status = 2 and version <> all($3::text[])
        order by version, lane, until limit $4 for no key update skip locked) w
    limit $4),
c as (
    insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
    select $1, picked.id, 1, '', '', '', 1, 0, 0, '', '' from picked
    on conflict (app, id) do update
    set status = 1, owner = null, claim = null, attempts = w.attempts + 1, cause = 1, problem = 'executor_died', detail = '',
        until = (select now from t), updated = (select now from t),
        last_seq = greatest(w.last_seq, (select h.seq from perdure.history h
            where h.app = $1 and h.id = w.id and h.run = w.run order by h.seq desc limit 1))
    returning w.*),
@died
select id from c

-- Notes trials; of each workflow the latest one stands.
-- name: trial_put
insert into perdure.trial as t (app, id, run, last_seq, version, reason, detail, at)
select $1, u.id, u.run, u.seq, u.version, u.reason, u.detail,
    coalesce($8::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint)
from unnest($2::text[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[])
    u (id, run, seq, version, reason, detail)
on conflict (app, id) do update
set run = excluded.run, last_seq = excluded.last_seq, version = excluded.version, reason = excluded.reason,
    detail = excluded.detail, at = excluded.at

-- The trials of these workflows.
-- name: trial_list
select t.*
from unnest($2::text[]) u (id)
cross join lateral (
    select id, run, last_seq, version, reason, detail, at from perdure.trial where app = $1 and id = u.id offset 0) t
