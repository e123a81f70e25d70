-- Schedules and their firings. `$1` is the app. State 1 is started, 2 skipped, 3 waiting.

-- Schedules by name: of the names in `$2` (null: all), those with something to do at `$3` (null: all).
-- name: schedule_list
select s.name, s.workflow, s.cron, s.every, s.tz, s.missed, s.overlap, s.catch_up, s.catch_up_span, s.takes_due,
    s.queue, s.next, s.anchor, s.paused, s.gone, s.declared, s.live, s.last, s.waiting, s.created, s.changed, s.revision,
    coalesce(w.status < 5, false)
from perdure.schedule s
left join lateral (select status from perdure.workflow where app = $1 and id = s.last offset 0) w on true
where s.app = $1 and ($2::text[] is null or s.name = any($2::text[]))
    and ($3::bigint is null or s.paused is null and s.gone is null and (s.next <= $3 or s.waiting > 0))
order by s.name

-- Locks a schedule: its revision.
-- name: schedule_lock
select revision from perdure.schedule where app = $1 and name = $2 for update

-- Makes a schedule, if there is none of its name.
-- name: schedule_insert
insert into perdure.schedule (app, name, workflow, cron, every, tz, missed, overlap, catch_up, catch_up_span, takes_due,
    queue, next, anchor, paused, gone, declared, live, last, waiting, created, changed, revision)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
on conflict (app, name) do nothing
returning revision

-- Writes a schedule that is locked.
-- name: schedule_update
update perdure.schedule set workflow = $3, cron = $4, every = $5, tz = $6, missed = $7, overlap = $8, catch_up = $9,
    catch_up_span = $10, takes_due = $11, queue = $12, next = $13, anchor = $14, paused = $15, gone = $16, declared = $17,
    live = $18, last = $19, waiting = $20, created = $21, changed = $22, revision = $23
where app = $1 and name = $2

-- Forgets a schedule that is locked.
-- name: schedule_delete
delete from perdure.schedule where app = $1 and name = $2

-- Forgets the firings of a schedule.
-- name: firing_delete
delete from perdure.firing where app = $1 and schedule = $2

-- Notes what became of nominal times. What was started stays started.
-- name: firing_put
insert into perdure.firing (app, schedule, at, until, state, workflow, reason, detail, noted)
select $1, $2, u.at, u.until, u.state, u.workflow, u.reason, u.detail, u.noted
from unnest($3::bigint[], $4::bigint[], $5::smallint[], $6::text[], $7::text[], $8::text[], $9::bigint[])
    u (at, until, state, workflow, reason, detail, noted)
on conflict (app, schedule, at, until) do update set state = excluded.state, workflow = excluded.workflow,
    reason = excluded.reason, detail = excluded.detail, noted = excluded.noted
where firing.state <> 1

-- Forgets firings older than `$3`, but for the latest `$4`.
-- name: firing_forget
delete from perdure.firing where app = $1 and schedule = $2 and state <> 3 and at < least($3::bigint, coalesce((
    select f.at from perdure.firing f where f.app = $1 and f.schedule = $2 order by f.at desc limit 1 offset $4), 0))

-- Firings, the latest first, from `$3` to `$4` (null: no bound) and of a state `$5` (null: any).
-- name: firing_list
select at, until, state, workflow, reason, detail, noted from perdure.firing
where app = $1 and schedule = $2 and ($3::bigint is null or until >= $3) and ($4::bigint is null or at <= $4)
    and ($5::smallint is null or state = $5)
order by at desc, until desc limit $6

-- The same, the oldest first.
-- name: firing_list_oldest
select at, until, state, workflow, reason, detail, noted from perdure.firing
where app = $1 and schedule = $2 and ($3::bigint is null or until >= $3) and ($4::bigint is null or at <= $4)
    and ($5::smallint is null or state = $5)
order by at, until limit $6
