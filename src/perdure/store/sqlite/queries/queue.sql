-- Queues and what stands in their lines. ?1 is the app.

-- All queues.
-- name: queue_list
select name, concurrency, worker_concurrency, rate_limit, rate_period, partition_concurrency, partition_rate_limit,
    partition_rate_period, paused, cursor, declared, live, changed, revision
from queue where app = ?1 order by name

-- One queue.
-- name: queue_get
select name, concurrency, worker_concurrency, rate_limit, rate_period, partition_concurrency, partition_rate_limit,
    partition_rate_period, paused, cursor, declared, live, changed, revision
from queue where app = ?1 and name = ?2

-- Makes a queue known that is not, without limits.
-- name: queue_make
insert into queue (app, name, changed, revision) values (?1, ?2, ?3, 1) on conflict do nothing

-- Changes a queue.
-- name: queue_put
update queue
set concurrency = ?3, worker_concurrency = ?4, rate_limit = ?5, rate_period = ?6, partition_concurrency = ?7,
    partition_rate_limit = ?8, partition_rate_period = ?9, paused = ?10, declared = ?11, live = ?12, changed = ?13,
    revision = revision + 1
where app = ?1 and name = ?2

-- What tells whether queues were changed.
-- name: queue_revisions
select coalesce(sum(revision), 0) from queue where app = ?1

-- Gives a slot to all that went through the line of a queue before it counted.
-- name: slot_fill
insert into slot (app, queue, id)
select app, queue, id from workflow indexed by workflow_open
where app = ?1 and lane is null and status < 5 and (status in (1, 2, 3) or reason = 'paused') and queue = ?2
on conflict do nothing

-- What of a queue's slots counts, by partition.
-- name: slot_live
select f.partition, count(*)
from slot s cross join workflow f on f.app = s.app and f.id = s.id
where s.app = ?1 and s.queue = ?2 and (f.status in (1, 2, 3) or f.reason = 'paused') and f.lane is null
    and f.queue = ?2
group by f.partition

-- Deletes the slots of what is over.
-- name: slot_prune
delete from slot where app = ?1 and queue = ?2 and not exists (
    select 1 from workflow f where f.app = ?1 and f.id = slot.id and (f.status in (1, 2, 3) or f.reason = 'paused')
        and f.lane is null and f.queue = ?2)

-- Deletes the slots of the workflow ?2, in the queues of its runs.
-- name: slot_forget
delete from slot where app = ?1 and id = ?2 and queue in (
    select queue from workflow where app = ?1 and id = ?2 union select queue from past_run where app = ?1 and id = ?2)

-- Takes a slot.
-- name: slot_insert
insert into slot (app, queue, id) values (?1, ?2, ?3) on conflict do nothing

-- What a queue has let through since ?3.
-- name: pace_since
select partition, at, n from pace where app = ?1 and queue = ?2 and at >= ?3

-- Forgets what it let through before.
-- name: pace_prune
delete from pace where app = ?1 and queue = ?2 and at < ?3

-- Counts what is let through now.
-- name: pace_add
insert into pace (app, queue, partition, at, n) values (?1, ?2, ?3, ?4, ?5)
on conflict do update set n = n + excluded.n

-- The first lane of a version beyond ?3 and below ?4 in which somebody stands.
-- name: lane_next
select lane from workflow
where app = ?1 and owner is null and version = ?2 and lane > ?3 and lane < ?4 and status < 5
order by lane limit 1

-- The last one, from ?3 on.
-- name: lane_last
select lane from workflow
where app = ?1 and owner is null and version = ?2 and lane >= ?3 and lane < ?4 and status < 5
order by lane desc limit 1

-- Who stands between the lanes ?3 and ?4, the first first; not those for whom it is too late at ?6.
-- name: lane_items
select lane, until, id from workflow
where app = ?1 and owner is null and version = ?2 and lane > ?3 and lane < ?4 and status < 5
    and (expires is null or expires > ?6)
order by lane, until, id limit ?5

-- When the next one of a version is to be lined up.
-- name: delayed_next
select until from workflow
where app = ?1 and owner is null and version = ?2 and lane = char(1) and status < 5 order by until limit 1

-- Who is to be lined up by ?3.
-- name: delayed_due
select id, queue from workflow
where app = ?1 and owner is null and version = ?2 and lane = char(1) and until <= ?3 and status < 5
order by until, id limit ?4

-- Lines one up.
-- name: line_up
update workflow set status = 1, updated = ?3,
    lane = queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648)
where app = ?1 and id = ?2

-- Hands back one that is held under ?3 and was never begun, in the line of the queue ?4 that its code declares: where
-- ?6 places it, without the version that the claim gave it unless ?7, its clock not started.
-- name: line_up_declared
update workflow set status = 1, queue = ?4, versioning = ?5, until = coalesce(?6, ?8), updated = ?8, owner = null,
    claim = null, version = case when ?7 then version else '' end, started = null,
    deadline = case when deadline <> started + timeout or timeout is null then deadline end,
    lane = ?4 || char(31) || partition || char(31) || printf('%08x', priority + 2147483648)
where app = ?1 and id = ?2 and claim = ?3 and status = 2 and queue is null and cancel is null
returning id

-- Remembers which partition was served last.
-- name: queue_cursor
update queue set cursor = ?3 where app = ?1 and name = ?2

-- Who in line is told to cancel, by one of the ?3 wakes for ids after ?2.
-- name: line_told
select distinct w.dest, w.cancel
from (select * from wake where app = ?1 and dest > ?2 order by dest, nonce limit ?3) w
cross join workflow f on f.app = ?1 and f.id = w.dest
where w.cancel is not null and f.status < 5
    and (f.lane is not null or f.status = 4 and f.reason not in ('paused', 'no_exit'))
order by w.dest

-- Remembers when somebody has been in line for too long.
-- name: expiry_insert
insert into expiry (app, at, id) values (?1, ?2, ?3) on conflict do nothing

-- When the next one has.
-- name: expiry_next
select at from expiry where app = ?1 order by at limit 1

-- Who may have been in line for too long by ?2.
-- name: expiry_due
select at, id from expiry where app = ?1 and at <= ?2 order by at, id limit ?3

-- Forgets such a time.
-- name: expiry_done
delete from expiry where app = ?1 and at = ?2 and id = ?3

-- Whose a deduplication key is.
-- name: dedup_get
select id from dedup where app = ?1 and queue = ?2 and key = ?3

-- Forgets the deduplication keys of the workflow ?2.
-- name: dedup_forget
delete from dedup where app = ?1 and id = ?2 and id <> ''

-- Gives a deduplication key to a workflow.
-- name: dedup_put
insert into dedup (app, queue, key, id) values (?1, ?2, ?3, ?4) on conflict do update set id = excluded.id

-- Forgets those of the next ?4 keys beyond ?3 that count no more.
-- name: dedup_prune
delete from dedup where app = ?1 and queue = ?2 and key in (
    select key from dedup where app = ?1 and queue = ?2 and key > ?3 order by key limit ?4)
    and not exists (
        select 1 from workflow f where f.app = ?1 and f.id = dedup.id and f.status < 5 and f.queue = ?2)

-- Lets one that was not begun wait until ?3, with another input; one that is paused stays so.
-- name: debounce
update workflow set until = ?3, fingerprint = ?4, updated = ?5, nonce = ?6,
    status = case when status = 4 then 4 else 0 end, lane = case when status = 4 then lane else char(1) end,
    expires = ?3 + (expires - until)
where app = ?1 and id = ?2

-- Another input.
-- name: debounce_input
update payload set input = ?4 where app = ?1 and id = ?2 and run = ?3

-- Counts what stands in line or is delayed, up to ?2 rows.
-- name: queue_waiting
select queue, late, count(*), min(until)
from (
    select queue, lane = char(1) as late, until from workflow indexed by workflow_open
    where app = ?1 and owner is null and lane > '' and status < 5 and status <> 4 limit ?2)
where queue is not null
group by 1, 2

-- Counts what went through the lines and is open and not held, among up to ?2 open rows.
-- name: queue_progress
select queue, count(*)
from (
    select queue, lane, status, reason from workflow indexed by workflow_open where app = ?1 and status < 5 limit ?2)
where queue is not null and lane is null and (status in (1, 2, 3) or reason = 'paused')
group by 1
