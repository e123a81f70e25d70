-- Queues and what stands in their lines. `$1` is the app. Lock order: the queue's row, then workflows.

-- All queues.
-- name: queue_list
select name, concurrency, worker_concurrency, rate_limit, rate_period, partition_concurrency, partition_rate_limit,
    partition_rate_period, paused, cursor, declared, live, changed, revision
from perdure.queue where app = $1 and name > '' order by name

-- Locks a queue against whoever claims from it. What is counted under the lock is counted by later statements: a count in
-- this one would be of a snapshot from before the lock was granted.
-- name: queue_lock
select name, concurrency, worker_concurrency, rate_limit, rate_period, partition_concurrency, partition_rate_limit,
    partition_rate_period, paused, cursor, declared, live, changed, revision
from perdure.queue where app = $1 and name = $2 for no key update

-- The same also against those who claim without counting, and only read that there are no limits.
-- name: queue_lock_alone
select name, concurrency, worker_concurrency, rate_limit, rate_period, partition_concurrency, partition_rate_limit,
    partition_rate_period, paused, cursor, declared, live, changed, revision
from perdure.queue where app = $1 and name = $2 for update

-- Makes queues known that are not, without limits.
-- name: queue_make
insert into perdure.queue (app, name, changed, revision)
select $1, u.name, coalesce($3::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint), 1
from unnest($2::text[]) u (name)
on conflict do nothing

-- Changes a queue that is locked.
-- name: queue_put
update perdure.queue
set concurrency = $3, worker_concurrency = $4, rate_limit = $5, rate_period = $6, partition_concurrency = $7,
    partition_rate_limit = $8, partition_rate_period = $9, paused = $10, declared = $11, live = $12,
    changed = coalesce($13::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
    revision = revision + 1
where app = $1 and name = $2

-- Gives a slot to all that went through the line of a queue before it counted.
-- name: slot_fill
insert into perdure.slot (app, queue, id)
select $1, $2, w.id
from (
    select id, queue from perdure.workflow
    where app = $1 and lane is null and status < 5 and (status in (1, 2, 3) or reason = 'paused') order by owner, version, lane, until offset 0) w
where w.queue = $2
on conflict do nothing

-- Deletes the slots of the workflows `$2`, in the queues of their runs; who has locked one deletes it himself.
-- name: slot_forget
delete from perdure.slot s where s.ctid = any(array(
    select x.ctid from unnest($2::text[]) u (id)
    cross join lateral (
        select queue from perdure.workflow where app = $1 and id = u.id
        union select queue from perdure.past_run where app = $1 and id = u.id) w
    cross join lateral (
        select ctid from perdure.slot
        where app = $1 and queue = w.queue and id = u.id for update skip locked) x))

-- Lets through the line of a queue that has no limits but each executor's own; `$7` are what this one has of it already,
-- `$8` the queue, `$9` and `$10` its bounds; that limit also counts as one unless `$13`. Whoever gives it limits waits for this, and this for them: `k` is the queue as
-- it is then. It is locked only if somebody stands there: who finds nothing writes nothing. The answer is in the order
-- of `picked`; a join to sort by would compare each with each, for the planner takes both for one row.
-- name: line_open
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
q as materialized (
    select greatest(0, least($3::int, worker_concurrency - $7::int)) as free
    from perdure.queue
    where app = $1 and name = $8 and not paused and concurrency is null and rate_limit is null
        and partition_concurrency is null and partition_rate_limit is null
        and (worker_concurrency is null or $13::boolean)),
due as materialized (
    select w.id, w.lane, w.since
    from q cross join unnest($11::text[]) v (version)
    cross join lateral (
        select id, lane, until as since from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane > $9 and lane < $10 and status < 5
            and (expires is null or expires > (select now from t))
        order by owner, version, lane, until, id limit q.free for no key update skip locked) w),
k as materialized (
    select greatest(0, least($3::int, worker_concurrency - $7::int)) as free
    from perdure.queue
    where app = $1 and name = $8 and not paused and concurrency is null and rate_limit is null
        and partition_concurrency is null and partition_rate_limit is null
        and (worker_concurrency is null or $13::boolean) and exists (select from due)
    for key share),
picked as materialized (
    select id from due where exists (select from k) and (@counts $12)
    order by lane, since, id limit (select free from k)),
@take
select @claimed
from c

-- What a queue has let through that is still in progress, by partition (0), if that is limited (`$5`), and what it let
-- through lately (1: since `$4`), if that is (`$6`). Slots of what is over, and what was before, are deleted.
-- name: line_used
with t as materialized (
    select coalesce($3::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
s as materialized (
    select x.place, w.partition, coalesce((w.status in (1, 2, 3) or w.reason = 'paused') and w.lane is null and w.queue = $2, false) as counts
    from (select ctid as place, id from perdure.slot where $5::boolean and app = $1 and queue = $2 order by id) x
    left join lateral (
        select partition, status, reason, lane, queue from perdure.workflow
        where app = $1 and id = x.id offset 0) w on true),
gone as (delete from perdure.slot k where k.ctid = any(array(select place from s where not counts))),
old as (
    delete from perdure.pace k where k.ctid = any(array(
        select ctid from perdure.pace
        where $6::boolean and app = $1 and queue = $2 and at < (select now from t) - $4::bigint)))
select 2 as kind, '' as partition, (select now from t) as at, 0::bigint as n
union all
select 0, partition, 0, count(*) from s where counts group by partition
union all
select 1, partition, at, n::bigint from perdure.pace
where $6::boolean and app = $1 and queue = $2 and at >= (select now from t) - $4::bigint

-- The partitions that stand in line, by hopping along the index: up to `$5` lanes of which each is another partition's
-- first, beyond `$3` and below `$4`.
-- name: line_hop
with recursive hop (lane) as (
    select (select min(x.lane) from unnest($2::text[]) v (version) cross join lateral (
        select lane from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane > $3 and lane < $4 and status < 5
        order by owner, version, lane, until limit 1) x)
    union all
    select (select min(x.lane) from unnest($2::text[]) v (version) cross join lateral (
        select lane from perdure.workflow
        where app = $1 and owner is null and version = v.version
            and lane > left(hop.lane, length(hop.lane) - 9) || ' ' and lane < $4 and status < 5
        order by owner, version, lane, until limit 1) x)
    from hop where hop.lane is not null)
select lane from hop where lane is not null limit $5

-- Lets through so many (`$9`) of each partition, given by its bounds (`$7`, `$8`), of the locked queue `$10`; they take
-- slots (`$11`) and count for its rate (`$12`). The answer is in the order of `picked`, as above.
-- name: line_take
with t as materialized (select $2::bigint as now),
due as materialized (
    select w.id, w.lane, w.since, u.n, u.quota
    from unnest($7::text[], $8::text[], $9::int[]) with ordinality u (low, high, quota, n)
    cross join unnest($13::text[]) v (version)
    cross join lateral (
        select id, lane, until as since from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane > u.low and lane < u.high and status < 5
            and (expires is null or expires > (select now from t))
        order by owner, version, lane, until, id limit u.quota for no key update skip locked) w),
ranked as (select *, row_number() over (partition by n order by lane, since, id) as place from due),
picked as materialized (
    select id from ranked where place <= quota and place <= $3 and (@counts $14) order by place, n),
@take,
slots as (
    insert into perdure.slot (app, queue, id) select $1, $10::text, c.id from c where $11::boolean
    on conflict do nothing),
paces as (
    insert into perdure.pace (app, queue, partition, at, n)
    select $1, $10::text, c.partition, (select now from t), count(*) from c where $12::boolean group by c.partition
    on conflict (app, queue, partition, at) do update set n = pace.n + excluded.n)
select @claimed
from c

-- Hands back those that are held under `$3` and were never begun, in the lines of the queues `$5` that their code
-- declares: where `$7` places them, without the version that the claim gave them unless `$8`, their clock not started.
-- name: line_up_declared
with t as materialized (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
held as materialized (
    select w.id, u.queue, u.versioning, u.since, case when u.versioned then w.version else '' end as version
    from unnest($4::text[], $5::text[], $6::smallint[], $7::bigint[], $8::boolean[]) with ordinality
        u (id, queue, versioning, since, versioned, n)
    cross join lateral (
        select id, claim, status, queue, cancel, version from perdure.workflow
        where app = $1 and id = u.id for no key update) w
    where w.claim = $3 and w.status = 2 and w.queue is null and w.cancel is null)
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
    queue, versioning, until)
select $1, held.id, 1, '', '', held.version, 1, 0, t.now, '', '', held.queue, held.versioning, coalesce(held.since, t.now)
from held, t
on conflict (app, id) do update
set status = 1, queue = excluded.queue, versioning = excluded.versioning, until = excluded.until,
    updated = excluded.updated, owner = null, claim = null, version = excluded.version, started = null,
    deadline = case when w.deadline <> w.started + w.timeout or w.timeout is null then w.deadline end,
    lane = excluded.queue || E'\x1f' || w.partition || E'\x1f'
        || lpad(to_hex(w.priority::bigint + 2147483648), 8, '0')
returning w.id

-- Remembers which partition was served last.
-- name: queue_cursor
update perdure.queue set cursor = $3 where app = $1 and name = $2

-- Lines up what was delayed until now: up to `$4` of the versions that the asker serves; whose they are.
-- name: line_up
with t as materialized (
    select coalesce($3::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
due as materialized (
    select w.id
    from unnest($2::text[]) v (version)
    cross join lateral (
        select id from perdure.workflow
        where app = $1 and owner is null and version = v.version and lane = E'\x01' and until <= (select now from t)
            and status < 5
        order by owner, version, lane, until limit $4 for no key update skip locked) w)
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
select $1, due.id, 1, '', '', '', 1, 0, 0, '', '' from due
on conflict (app, id) do update set status = 1, lane = @lane, updated = (select now from t)
returning w.queue

-- Remembers when these have been in line for too long; not of a second try, whose row may have left the line.
-- name: expiry_insert
insert into perdure.expiry (app, at, id)
select $1, w.expires, w.id
from unnest($2::text[]) u (id)
cross join lateral (select id, expires, lane from perdure.workflow where app = $1 and id = u.id offset 0) w
where w.expires is not null and w.lane is not null
on conflict do nothing

-- Who may have been in line for too long by now.
-- name: expiry_due
select at, id from perdure.expiry where app = $1 and at <= $2 order by at, id limit $3

-- Forgets these times.
-- name: expiry_done
delete from perdure.expiry k where k.ctid = any(array(
    select x.ctid from unnest($2::bigint[], $3::text[]) u (at, id) cross join lateral (
        select ctid from perdure.expiry where app = $1 and at = u.at and id = u.id offset 0) x))

-- Locks the deduplication key `$3` of the queue `$2`, made for the workflow `$4` if there is none; whose it is, and
-- whether it was made.
-- name: dedup_lock
insert into perdure.dedup as d (app, queue, key, id) values ($1, $2, $3, $4)
on conflict (app, queue, key) do update set id = d.id
returning id, xmax::text = '0' as made

-- Which deduplication keys the workflow `$2` has.
-- name: dedup_of
select queue, key from perdure.dedup where app = $1 and id = $2 and id <> ''

-- Locks the key `$3` of the queue `$2`, if it is known.
-- name: dedup_hold
select id from perdure.dedup where app = $1 and queue = $2 and key = $3 for update

-- Forgets the locked keys of the workflow `$2`, but the one of the queue `$3` that is `$4`.
-- name: dedup_forget
delete from perdure.dedup where app = $1 and id = $2 and id <> '' and not (queue = $3 and key = $4)

-- Gives a locked key to another workflow.
-- name: dedup_set
update perdure.dedup set id = $4 where app = $1 and queue = $2 and key = $3

-- Lets one that was not begun wait for another time (`$3`), with another input; one that is paused stays so.
-- name: debounce
update perdure.workflow w
set until = $3, fingerprint = $4, updated = $5, nonce = $6,
    status = case when w.status = 4 then 4 else 0 end, lane = case when w.status = 4 then w.lane else E'\x01' end,
    expires = $3::bigint + (w.expires - w.until)
where app = $1 and id = $2

-- Another input.
-- name: debounce_input
update perdure.payload set input = $4 where app = $1 and id = $2 and run = $3

-- Counts what stands in line or is delayed (by version, found by hopping), up to `$2` rows of each version.
-- name: queue_waiting
with recursive @free
select c.queue, c.late, count(*), min(c.until)
from free cross join lateral (
    select w.queue, w.lane = E'\x01' as late, w.until from perdure.workflow w
    where w.app = $1 and w.owner is null and w.version = free.version and w.lane > '' and w.status < 5
        and w.status <> 4
    order by w.owner, w.version, w.lane, w.until limit $2) c
where c.queue is not null
group by 1, 2

-- Counts what went through the lines and is open and not held, among up to `$2` open rows.
-- name: queue_progress
select w.queue, count(*)
from (
    select queue, lane, status, reason from perdure.workflow
    where app = $1 and status < 5 order by owner, version, lane, until limit $2) w
where w.queue is not null and w.lane is null and (w.status in (1, 2, 3) or w.reason = 'paused')
group by 1

-- Takes back a key that was made for nothing.
-- name: dedup_drop
delete from perdure.dedup where app = $1 and queue = $2 and key = $3

-- Locks up to `$4` keys of a queue beyond `$3`.
-- name: dedup_next
select key from perdure.dedup where app = $1 and queue = $2 and key > $3
order by app, queue, key limit $4 for update skip locked

-- Forgets those of the locked keys `$3` that count no more.
-- name: dedup_prune
delete from perdure.dedup k where k.ctid = any(array(
    select x.place
    from (
        select d.place, d.id from unnest($3::text[]) u (key) cross join lateral (
            select ctid as place, id from perdure.dedup where app = $1 and queue = $2 and key = u.key offset 0) d) x
    left join lateral (select status, queue from perdure.workflow where app = $1 and id = x.id offset 0) w on true
    where coalesce(w.status >= 5 or w.queue is distinct from $2, true)))
