-- Reading. `$1` is the app. Keys come as arrays and each is looked up through the key of its table: a lateral join with
-- its own order cannot become a scan, however small the table was when the statement was planned.

-- Histories of many runs, each in the order observed.
-- name: histories
select k.n, h.seq, h.path, h.kind, h.name, h.at, h.fingerprint, h.outcome, h.data, h.attempt, h.shown, h.intents,
    h.version
from unnest($2::text[], $3::int[]) with ordinality k (id, run, n)
cross join lateral (
    select * from perdure.history where app = $1 and id = k.id and run = k.run order by seq offset 0) h

-- Untaken mail, first in first out.
-- name: inbox
select m.dest, m.mid, m.topic, m.data, m.at, m.sender
from unnest($2::text[]) k (dest)
cross join lateral (
    select * from perdure.message where app = $1 and dest = k.dest and taken_seq is null order by mid offset 0) m

-- The latest runs of ids.
-- name: rows
select @row,
    (select min(k.cancel) from perdure.wake k where k.app = $1 and k.dest = c.id)
from unnest($2::text[]) u (id)
cross join lateral (select * from perdure.workflow where app = $1 and id = u.id offset 0) c

-- One run, if it is the latest.
-- name: run_latest
select @row from perdure.workflow c where c.app = $1 and c.id = $2 and c.run = $3

-- One run, if it is an earlier one.
-- name: run_past
select @row from perdure.past_run c where c.app = $1 and c.id = $2 and c.run = $3

-- Inputs of runs.
-- name: inputs
select p.id, p.run, p.input
from unnest($2::text[], $3::int[]) k (id, run)
cross join lateral (select * from perdure.payload where app = $1 and id = k.id and run = k.run offset 0) p

-- How those that are closed ended.
-- name: ended
select @row, p.outcome, p.output
from unnest($2::text[]) u (id)
cross join lateral (select * from perdure.workflow where app = $1 and id = u.id offset 0) c
cross join lateral (select * from perdure.payload where app = $1 and id = c.id and run = c.run offset 0) p
where c.status >= 5

-- The same, and (with no row) the ids that no workflow has.
-- name: fates
select @row, p.outcome, p.output, u.id
from unnest($2::text[]) u (id)
left join lateral (select * from perdure.workflow where app = $1 and id = u.id offset 0) c on true
left join lateral (
    select * from perdure.payload where app = $1 and id = c.id and run = c.run and c.status >= 5 offset 0) p on true
where c.id is null or c.status >= 5

-- Events of latest runs.
-- name: events
select e.id, e.name, e.data
from unnest($2::text[], $3::text[]) k (id, name)
cross join lateral (
    select run from perdure.workflow where app = $1 and id = k.id offset 0) w
cross join lateral (
    select * from perdure.event where app = $1 and id = k.id and run = w.run and name = k.name offset 0) e

-- The next app after `$1` by name, null if none: apps are few, their workflows are not.
-- name: app_next
select min(app) from perdure.workflow where app > $1
