-- Taking workflows. `$1` is the app, `$2` now or null, `$3` the limit, `$4` the owner, `$5` the token, `$6` the version.
-- What stands in a queue's line (`lane` not null) is not for these: see queue.sql. What went through one is taken as
-- far as its queue lets this executor: of the queues in the first of the last four parameters nothing, of those in
-- the second so many as the third says, if the claim still counts (`@counts` and the fourth: see COUNTS in text.py).
-- Conditions on `status + 0` are for the lock alone: they must not bring in the index of open rows for a look-up by id.
-- Rows that others have locked are skipped, so a claim never waits for a batch; every condition that must hold is a
-- column of the locked row. `@row` stands for a workflow's columns, `@take` for what a claim does to what it
-- has picked and locked, `@suspect` for what tells a suspect, `@tries` for its deaths so far, `@given` for those of the
-- owners in `$7` that nobody has given to another than the asker: see text.py.

-- Ready workflows of versions `$6` and `$7` (that of what has none yet, or the same again), oldest due first; woken
-- ones are due since they began to wait. Their wakes and watches go with them.
-- If `$8` one suspect may be among them (see docs/internals/recovery.md), else none: the first that is due. Woken ones are
-- looked for among the `$14` wakes for ids after `$13`.
-- name: claim_ready
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
due as materialized (
    select w.id, w.since, w.suspect, w.queue, v.version
    from unnest(array[$7::text, $6::text]) v (version)
    cross join lateral (
        select id, until as since, attempts >= 2 as suspect, queue from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane is null and until <= (select now from t)
            and status < 5 and (attempts < 2 or $8::boolean) and (queue is null or queue <> all($9::text[]))
        order by owner, version, lane, until limit $3 for no key update skip locked) w),
mail as materialized (
    select dest, bool_or(cancel is not null) as command
    from (select dest, cancel from perdure.wake where app = $1 and dest > $13 order by dest, nonce limit $14) x
    group by dest),
woken as materialized (
    select w.id, w.updated as since, w.suspect, w.queue, w.version
    from (
        select r.id, r.updated, mail.command
        from mail cross join lateral (
            select id, updated, status, reason, version, lane, queue from perdure.workflow
            where app = $1 and id = mail.dest offset 0) r
        where r.version in ($7, $6)
            and (r.status = 3 or r.reason = 'no_exit'
                or mail.command and (r.status in (0, 1) or r.reason = 'paused') and r.lane is null)
            and (r.queue is null or r.queue <> all($9::text[]))
        order by r.updated, r.id limit 4 * $3) x
    cross join lateral (
        select id, updated, attempts >= 2 as suspect, queue, version from perdure.workflow
        where app = $1 and id = x.id and (attempts < 2 or $8::boolean) and version || '' in ($7, $6) and lane is null
            and (status + 0 = 3 or reason = 'no_exit' or x.command and (status + 0 in (0, 1) or reason = 'paused'))
        for no key update skip locked) w),
ready as materialized (
    select id, min(since) as since, bool_or(suspect) as suspect, min(queue) as queue, min(version) as version
    from (select * from due union all select * from woken) x group by id),
ranked as (
    select id, since, queue, version, row_number() over (partition by queue order by since, id) as n
    from ready where not suspect or id = (select id from ready where suspect order by since, id limit 1)),
picked as materialized (
    select r.id, r.since, r.version
    from ranked r left join unnest($10::text[], $11::int[]) c (queue, free) on c.queue = r.queue
    where (c.free is null or r.n <= c.free) and (@counts $12)
    order by 2, 1 limit $3),
@take,
o as materialized (
    select array_agg(id) as ids, array_agg(since) as sinces, array_agg(version > '') as versioned from picked)
select @claimed,
    o.sinces[p.n], o.versioned[p.n]
from o cross join c cross join lateral (select array_position(o.ids, c.id) as n offset 0) p order by p.n

-- Running workflows of the incarnations in `$7`, of version `$6`, but no suspects; `$8` and `$9`: see DEATH in text.py.
-- name: claim_orphans
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
found as materialized (
    select w.id, w.queue, u.owner
    from @given u
    cross join lateral (
        select id, queue from perdure.workflow
        where app = $1 and owner = u.owner and version = $6 and status = 2 and not @suspect
            and (queue is null or queue <> all($10::text[]))
        order by lane, until limit $3 for no key update skip locked) w
    limit $3),
picked as materialized (
    select f.id, f.owner
    from (select id, owner, queue, row_number() over (partition by queue order by id) as n from found) f
    left join unnest($11::text[], $12::int[]) c (queue, free) on c.queue = f.queue
    where (c.free is null or f.n <= c.free) and (@counts $13)),
@take_dead,
@noted
select @claimed
from c order by c.id

-- The suspects among them, those of the fewest deaths first.
-- name: claim_suspects
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
found as materialized (
    select w.id, w.attempts, u.owner
    from @given u
    cross join lateral (
        select id, attempts from perdure.workflow
        where app = $1 and owner = u.owner and version = $6 and status = 2 and @suspect
            and (queue is null or queue <> all($10::text[])) order by lane, until offset 0) w
    order by w.attempts, w.id),
locked as materialized (
    select w.id, w.queue, found.owner
    from found cross join lateral (
        select id, queue from perdure.workflow
        where app = $1 and id = found.id and status + 0 = 2 and owner || '' = any($7::bytea[])
        for no key update skip locked) w
    limit $3),
picked as materialized (
    select f.id, f.owner
    from (select id, owner, queue, row_number() over (partition by queue order by id) as n from locked) f
    left join unnest($11::text[], $12::int[]) c (queue, free) on c.queue = f.queue
    where (c.free is null or f.n <= c.free) and (@counts $13)),
@take_dead,
@noted
select @claimed
from c order by c.id

-- Those of the incarnations `$2` that died with a suspect of version `$3`.
-- name: with_suspects
select u.owner
from unnest($2::bytea[]) u (owner)
where exists (
    select from perdure.workflow
    where app = $1 and owner = u.owner and version = $3 and status = 2 and @tries >= 2 order by lane, until offset 0)

-- What the incarnations in `$2` hold.
-- name: held_by
select w.id
from unnest($2::bytea[]) u (owner)
cross join lateral (
    select id from perdure.workflow where app = $1 and owner = u.owner and status = 2 order by version, lane, until offset 0) w
order by 1

-- Named runs (`$7`, `$8`) that the owner itself holds, not moved to another version since: the answer to their claim was
-- lost.
-- name: claim_again
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
picked as materialized (
    select w.id
    from unnest($7::text[], $8::int[]) u (id, run)
    cross join lateral (
        select id, run from perdure.workflow
        where app = $1 and id = u.id and owner = $4 and status + 0 = 2 and version || '' = $6
        for no key update) w
    where w.run = u.run and (@counts $9) limit $3),
@take
select @claimed
from c order by c.id

-- One look, at the `$10` wakes for ids after `$9`: wakes for what `$3` holds, when something becomes claimable, what it owns beyond the held `$4`, `$5`, `$11` (asked
-- for by `$6`), and when a schedule fires; `$7` and `$8` are the versions that the asker takes, as above. And of queues,
-- for who works (`$3`): whose lines are not empty, found by hopping from queue to queue, each with its first and last
-- lane; when something is to be lined up, or has stood in line for too long; who in line is told to cancel; and what
-- tells whether the limits were changed. What it owns is compared by `except`, which sorts or hashes: a join may compare
-- each with each, for no statistics tell that an owner has thousands.
-- name: poll
with recursive t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
x as materialized (
    select dest, nonce, cancel from perdure.wake where app = $1 and dest > $9 order by dest, nonce limit $10),
k as materialized (
    select w.status, w.reason, w.owner, w.version, w.lane, w.pause, x.dest, x.nonce, x.cancel
    from x cross join lateral (
        select status, reason, owner, version, lane, pause from perdure.workflow
        where app = $1 and id = x.dest offset 0) w
    where w.status < 5),
mine as (
    select array_agg(dest) as dests, array_agg(nonce) as nonces, array_agg(cancel) as cancels,
        array_agg(pause) as pauses
    from k where status = 2 and owner = $3),
stray as (
    select array_agg(id) as ids, array_agg(run) as runs, array_agg(claim) as claims
    from (
        select id, run, claim from (
            select id, run, claim from perdure.workflow
            where $6::boolean and app = $1 and owner = $3 and status = 2 order by version, lane, until offset 0) w
        except select h.id, h.run, h.claim from unnest($4::text[], $5::int[], $11::bytea[]) h (id, run, claim)
        order by 1) x),
hop (lane) as (
    select (select min(x.lane) from unnest(array[$8::text, $7::text]) v (version) cross join lateral (
        select lane from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane > E'\x02' and status < 5
        order by owner, version, lane, until limit 1) x)
    where $3 is not null
    union all
    select (select min(x.lane) from unnest(array[$8::text, $7::text]) v (version) cross join lateral (
        select lane from perdure.workflow
        where app = $1 and owner is null and version = v.version
            and lane > split_part(hop.lane, E'\x1f', 1) || ' ' and status < 5
        order by owner, version, lane, until limit 1) x)
    from hop where hop.lane is not null),
lines as (
    select array_agg(l.lane) as firsts, array_agg(l.last) as lasts
    from (
        select hop.lane, (
            select max(x.lane) from unnest(array[$8::text, $7::text]) v (version) cross join lateral (
                select lane from perdure.workflow
                where app = $1 and owner is null and version = v.version and lane >= hop.lane
                    and lane < split_part(hop.lane, E'\x1f', 1) || ' ' and status < 5
                order by owner desc, version desc, lane desc, until desc limit 1) x) as last
        from hop where hop.lane is not null) l),
told as (
    select array_agg(dest) as dests, array_agg(cancel) as reasons
    from k where cancel is not null and $3 is not null
        and (lane is not null or status = 4 and reason not in ('paused', 'no_exit')))
select t.now,
    case when exists (
        select from k
        where version in ($8, $7)
            and (status = 3 or reason = 'no_exit'
                or cancel is not null and (status in (0, 1) or reason = 'paused') and lane is null)) then t.now
    else (select greatest(w.until, t.now)
        from unnest(array[$8::text, $7::text]) v (version)
        cross join lateral (
            select until from perdure.workflow
            where app = $1 and owner is null and version = v.version and lane is null and until is not null
                and status < 5
            order by owner, version, lane, until limit 1) w
        order by w.until limit 1) end,
    mine.dests, mine.nonces, mine.cancels, stray.ids, stray.runs, lines.firsts, lines.lasts,
    least(
        (select min(w.until) from unnest(array[$8::text, $7::text]) v (version) cross join lateral (
            select until from perdure.workflow
            where $3 is not null and app = $1 and owner is null and version = v.version and lane = E'\x01'
                and status < 5
            order by owner, version, lane, until limit 1) w),
        (select at from perdure.expiry where $3 is not null and app = $1 order by at limit 1)),
    told.dests, told.reasons,
    (select coalesce(sum(revision), 0)::bigint from perdure.queue where app = $1 and name > '' and $3 is not null),
    case when exists (
        select from perdure.schedule s
        left join lateral (select status from perdure.workflow where app = $1 and id = s.last offset 0) w on true
        where s.app = $1 and s.waiting > 0 and s.paused is null and s.gone is null and coalesce(w.status, 5) >= 5)
    then t.now
    else (select greatest(next, t.now) from perdure.schedule
        where app = $1 and paused is null and gone is null and next is not null order by next limit 1) end,
    mine.pauses, (select case when count(*) = $10 then max(dest) end from x), stray.claims
from t, mine, stray, lines, told
