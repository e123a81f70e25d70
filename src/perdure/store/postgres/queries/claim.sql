-- Taking workflows. `$1` is the app, `$2` now or null, `$3` the limit, `$4` the owner, `$5` the token, `$6` the version.
-- Conditions on `status + 0` are for the lock alone: they must not bring in the index of open rows for a look-up by id.
-- Rows that others have locked are skipped, so a claim never waits for a batch; every condition that must hold is a
-- column of the locked row. `@row` stands for a workflow's columns, `@take` for what a claim does to what it
-- has picked and locked, `@suspect` for what tells a suspect, `@tries` for its deaths so far: see text.py.

-- Ready workflows, oldest due first; woken ones are due since they began to wait. Their wakes and watches go with them.
-- name: claim_ready
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
due as materialized (
    select w.id, w.since
    from unnest(array['', $6::text]) v (version)
    cross join lateral (
        select id, until as since from perdure.workflow
        where app = $1 and owner is null and version = v.version and until <= (select now from t) and status < 5
        order by owner, version, until limit $3 for no key update skip locked) w),
mail as materialized (
    select dest, bool_or(cancel is not null) as command from perdure.wake where app = $1 group by dest),
woken as materialized (
    select w.id, w.updated as since
    from (
        select r.id, r.updated, mail.command
        from mail cross join lateral (
            select id, updated, status, version from perdure.workflow where app = $1 and id = mail.dest offset 0) r
        where r.version in ('', $6) and (r.status = 3 or mail.command and r.status in (0, 1))
        order by r.updated, r.id limit 4 * $3) x
    cross join lateral (
        select id, updated from perdure.workflow
        where app = $1 and id = x.id and version || '' in ('', $6)
            and (status + 0 = 3 or x.command and status + 0 in (0, 1))
        for no key update skip locked) w),
picked as materialized (
    select id, min(since) as since from (select id, since from due union all select id, since from woken) x
    group by id order by 2, 1 limit $3),
@take
select @row, (select p.input from perdure.payload p where p.app = $1 and p.id = c.id and p.run = c.run)
from c join picked on picked.id = c.id order by picked.since, c.id

-- Running workflows of the incarnations in `$7`, of version `$6`, but no suspects; `$8` and `$9`: see DEATH in text.py.
-- name: claim_orphans
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
picked as materialized (
    select w.id, u.owner
    from unnest($7::bytea[]) u (owner)
    cross join lateral (
        select id from perdure.workflow
        where app = $1 and owner = u.owner and version = $6 and status = 2 and not @suspect
        order by until limit $3 for no key update skip locked) w
    limit $3),
@take_dead,
@noted
select @row, (select p.input from perdure.payload p where p.app = $1 and p.id = c.id and p.run = c.run)
from c order by c.id

-- The suspects among them, those of the fewest deaths first.
-- name: claim_suspects
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
found as materialized (
    select w.id, w.attempts, u.owner
    from unnest($7::bytea[]) u (owner)
    cross join lateral (
        select id, attempts from perdure.workflow
        where app = $1 and owner = u.owner and version = $6 and status = 2 and @suspect order by until offset 0) w
    order by w.attempts, w.id),
picked as materialized (
    select w.id, found.owner
    from found cross join lateral (
        select id from perdure.workflow
        where app = $1 and id = found.id and status + 0 = 2 and owner || '' = any($7::bytea[])
        for no key update skip locked) w
    limit $3),
@take_dead,
@noted
select @row, (select p.input from perdure.payload p where p.app = $1 and p.id = c.id and p.run = c.run)
from c order by c.id

-- Those of the incarnations `$2` that died with a suspect of version `$3`.
-- name: with_suspects
select u.owner
from unnest($2::bytea[]) u (owner)
where exists (
    select from perdure.workflow
    where app = $1 and owner = u.owner and version = $3 and status = 2 and @tries >= 2 order by until offset 0)

-- Owners that are no incarnations, found by hopping from owner to owner.
-- name: absent
with recursive o as (
    (select owner from perdure.workflow
    where app = $1 and owner is not null and status < 5 order by owner limit 1)
    union all
    select (select w.owner from perdure.workflow w
        where w.app = $1 and w.owner > o.owner and w.status < 5 order by w.owner limit 1)
    from o where o.owner is not null)
select o.owner from o left join perdure.incarnation i on i.id = o.owner where o.owner is not null and i.id is null

-- What the incarnations in `$2` hold.
-- name: held_by
select w.id
from unnest($2::bytea[]) u (owner)
cross join lateral (
    select id from perdure.workflow where app = $1 and owner = u.owner and status = 2 order by version, until offset 0) w
order by 1

-- Named runs (`$7`, `$8`) that the owner itself holds: the answer to their claim was lost.
-- name: claim_again
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
picked as materialized (
    select w.id
    from unnest($7::text[], $8::int[]) u (id, run)
    cross join lateral (
        select id, run from perdure.workflow where app = $1 and id = u.id and owner = $4 and status + 0 = 2
        for no key update) w
    where w.run = u.run limit $3),
@take
select @row, (select p.input from perdure.payload p where p.app = $1 and p.id = c.id and p.run = c.run)
from c order by c.id

-- One look: wakes for what `$3` holds, when something becomes claimable, what it owns beyond the held `$4`, `$5`
-- (asked for by `$6`), and when a schedule fires; `$7` is the version that the asker runs.
-- name: poll
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
k as materialized (
    select w.status, w.owner, w.version, x.dest, x.nonce, x.cancel
    from (select dest, nonce, cancel from perdure.wake where app = $1 order by dest, nonce) x
    cross join lateral (select status, owner, version from perdure.workflow where app = $1 and id = x.dest offset 0) w
    where w.status < 5),
mine as (
    select array_agg(dest) as dests, array_agg(nonce) as nonces, array_agg(cancel) as cancels
    from k where status = 2 and owner = $3),
stray as (
    select array_agg(w.id) as ids, array_agg(w.run) as runs
    from (
        select id, run from perdure.workflow
        where $6::boolean and app = $1 and owner = $3 and status = 2 order by version, until offset 0) w
    where not exists (select from unnest($4::text[], $5::int[]) h (id, run) where h.id = w.id and h.run = w.run))
select t.now,
    case when exists (
        select from k where version in ('', $7) and (status = 3 or cancel is not null and status in (0, 1))) then t.now
    else (select greatest(w.until, t.now)
        from unnest(array['', $7::text]) v (version)
        cross join lateral (
            select until from perdure.workflow
            where app = $1 and owner is null and version = v.version and until is not null and status < 5
            order by owner, version, until limit 1) w
        order by w.until limit 1) end,
    mine.dests, mine.nonces, mine.cancels, stray.ids, stray.runs,
    case when exists (
        select from perdure.schedule s
        left join lateral (select status from perdure.workflow where app = $1 and id = s.last offset 0) w on true
        where s.app = $1 and s.waiting > 0 and s.paused is null and s.gone is null and coalesce(w.status, 5) >= 5)
    then t.now
    else (select greatest(next, t.now) from perdure.schedule
        where app = $1 and paused is null and gone is null and next is not null order by next limit 1) end
from t, mine, stray
