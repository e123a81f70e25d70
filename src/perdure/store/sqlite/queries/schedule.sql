-- Schedules and their firings. ?1 is the app. State 1 is started, 2 skipped, 3 waiting.

-- When the next schedule fires that is not paused.
-- name: schedule_next_due
select next from schedule
where app = ?1 and paused is null and gone is null and next is not null order by next limit 1

-- Whether some firing may start because the workflow before it has ended.
-- name: schedule_may_start
select 1 from schedule s
where s.app = ?1 and s.waiting > 0 and s.paused is null and s.gone is null
    and not exists (select 1 from workflow w where w.app = ?1 and w.id = s.last and w.status < 5)
limit 1

-- Schedules by name: of the names in ?2 (a JSON array, null: all), those with something to do at ?3 (null: all).
-- name: schedule_list
select s.name, s.workflow, s.cron, s.every, s.tz, s.missed, s.overlap, s.catch_up, s.catch_up_span, s.takes_due,
    s.queue, s.next, s.anchor, s.paused, s.gone, s.declared, s.live, s.last, s.waiting, s.created, s.changed, s.revision,
    exists (select 1 from workflow w where w.app = ?1 and w.id = s.last and w.status < 5)
from schedule s
where s.app = ?1 and (?2 is null or s.name in (select value from json_each(?2)))
    and (?3 is null or s.paused is null and s.gone is null and (s.next <= ?3 or s.waiting > 0))
order by s.name

-- The revision of a schedule.
-- name: schedule_revision
select revision from schedule where app = ?1 and name = ?2

-- Writes a schedule whose revision was compared in the same transaction.
-- name: schedule_put
insert into schedule (app, name, workflow, cron, every, tz, missed, overlap, catch_up, catch_up_span,
    takes_due, queue, next, anchor, paused, gone, declared, live, last, waiting, created, changed, revision)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
on conflict (app, name) do update set workflow = excluded.workflow, cron = excluded.cron, every = excluded.every,
    tz = excluded.tz, missed = excluded.missed, overlap = excluded.overlap, catch_up = excluded.catch_up,
    catch_up_span = excluded.catch_up_span, takes_due = excluded.takes_due, queue = excluded.queue,
    next = excluded.next, anchor = excluded.anchor, paused = excluded.paused, gone = excluded.gone,
    declared = excluded.declared, live = excluded.live, last = excluded.last, waiting = excluded.waiting,
    created = excluded.created, changed = excluded.changed, revision = excluded.revision

-- Forgets a schedule.
-- name: schedule_delete
delete from schedule where app = ?1 and name = ?2

-- Forgets the firings of a schedule.
-- name: firing_delete
delete from firing where app = ?1 and schedule = ?2

-- Notes what became of a nominal time. What was started stays started.
-- name: firing_put
insert into firing (app, schedule, at, until, state, workflow, reason, detail, noted)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
on conflict (app, schedule, at, until) do update set state = excluded.state, workflow = excluded.workflow,
    reason = excluded.reason, detail = excluded.detail, noted = excluded.noted
where firing.state <> 1

-- Forgets firings older than ?3, but for the latest ?4.
-- name: firing_forget
delete from firing where app = ?1 and schedule = ?2 and state <> 3 and at < min(?3, coalesce((
    select f.at from firing f where f.app = ?1 and f.schedule = ?2 order by f.at desc limit 1 offset ?4), 0))

-- Firings, the latest first, from ?3 to ?4 (null: no bound) and of a state ?5 (null: any).
-- name: firing_list
select at, until, state, workflow, reason, detail, noted from firing
where app = ?1 and schedule = ?2 and (?3 is null or until >= ?3) and (?4 is null or at <= ?4)
    and (?5 is null or state = ?5)
order by at desc, until desc limit ?6

-- The same, the oldest first.
-- name: firing_list_oldest
select at, until, state, workflow, reason, detail, noted from firing
where app = ?1 and schedule = ?2 and (?3 is null or until >= ?3) and (?4 is null or at <= ?4)
    and (?5 is null or state = ?5)
order by at, until limit ?6
