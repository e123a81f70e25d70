-- Orders of an operator, about many workflows at once: `$1` is the app, `$2` their ids, whose rows are locked. Each goes to
-- its rows by the key; what changes rows does so as an upsert, since an update's join may be planned as a scan.

-- Says where they run on: version `$3`, behaviour `$4`, what that overrides `$5`; by the orders `$6` at `$9`, their records
-- being `$7`. Those of `$8` are to be claimed anew: taken from their holders, due if they wait, queued if they are held
-- for one of `$10`.
-- name: workflow_ordered
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
    versioning, override, claim, last_seq, epoch)
select $1, u.id, 1, '', '', u.version, 1, 0, $9, '', '', u.versioning, u.override, u.claim, u.seq, u.go::int
from unnest($2::text[], $3::text[], $4::smallint[], $5::smallint[], $6::bytea[], $7::int[], $8::boolean[])
    u (id, version, versioning, override, claim, seq, go)
on conflict (app, id) do update set version = excluded.version, versioning = excluded.versioning,
    override = excluded.override, claim = excluded.claim, owner = null, updated = excluded.updated,
    last_seq = excluded.last_seq,
    status = case when excluded.epoch = 1 and (w.status = 2 or w.reason = any($10::text[])) then 1 else w.status end,
    until = case when excluded.epoch = 1 and (w.status in (2, 3) or w.reason = any($10)) then excluded.updated
        else w.until end,
    attempts = case when excluded.epoch = 1 and (w.status <> 4 or w.reason = any($10)) then 0 else w.attempts end,
    cause = case when excluded.epoch = 1 and (w.status <> 4 or w.reason = any($10)) then 0 else w.cause end,
    lane = case when excluded.epoch = 1 and w.reason = any($10) then @lane else w.lane end,
    detail = case when excluded.epoch = 1 and (w.status = 2 or w.reason = any($10)) then '' else w.detail end,
    reason = case when excluded.epoch = 1 and w.reason = any($10) then null else w.reason end

-- The same of what somebody holds and goes on holding.
-- name: workflow_labelled
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
    versioning, override)
select $1, u.id, 1, '', '', '', 1, 0, 0, '', '', u.versioning, u.override
from unnest($2::text[], $3::smallint[], $4::smallint[]) u (id, versioning, override)
on conflict (app, id) do update set versioning = excluded.versioning, override = excluded.override

-- Writes records of runs whose rows are locked.
-- name: history_put
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
    intents, version, nonce)
select $1, u.id, u.run, u.seq, u.path, u.kind, u.name, u.at, u.fingerprint, u.outcome, u.data, u.attempt, u.shown,
    u.intents, u.version, u.nonce
from unnest($2::text[], $3::int[], $4::int[], $5::text[], $6::smallint[], $7::text[], $8::bigint[], $9::bytea[],
    $10::smallint[], $11::text[], $12::int[], $13::text[], $14::text[], $15::text[], $16::bytea[])
    u (id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version, nonce)

-- Copies the runs `$3` out of the hot rows, as superseded (`$4`) at `$5`; closed then, unless they were before.
-- name: reset_past
insert into perdure.past_run (app, id, run, lineage, name, version, status, detail, claim, epoch, attempts, last_seq,
    timeout, deadline, created, updated, started, closed, cancel, parent, parent_run, parent_path, on_parent_close,
    queue, priority, fingerprint, attributes, intents, nonce, versioning, partition, override)
select w.app, w.id, w.run, w.lineage, w.name, w.version, $4::smallint, w.detail, w.claim, w.epoch, w.attempts,
    greatest(w.last_seq, (select h.seq from perdure.history h
        where h.app = $1 and h.id = w.id and h.run = w.run order by h.seq desc limit 1)),
    w.timeout, w.deadline, w.created, $5::bigint, w.started, coalesce(w.closed, $5), w.cancel, w.parent, w.parent_run,
    w.parent_path, w.on_parent_close, w.queue, w.priority, w.fingerprint, w.attributes, w.intents, w.nonce,
    w.versioning, w.partition, w.override
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (select * from perdure.workflow where app = $1 and id = u.id and run = u.run offset 0) w

-- Begins the next runs in their rows, at `$4`: run `$3` of version `$5`, behaviour `$6`, override `$7`, inserted by `$8`, whose
-- body's time began at `$9`, with the deadline `$10` and so many records (`$11`); told to pause (`$12`); those of `$13` are
-- no longer told to cancel.
-- name: reset_begin
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce,
    versioning, override, started, deadline, last_seq, pause, epoch)
select $1, u.id, u.run, '', '', u.version, 1, $4, $4, '', u.nonce, u.versioning, u.override, u.started, u.deadline,
    u.seq, u.pause, u.uncancel::int
from unnest($2::text[], $3::int[], $5::text[], $6::smallint[], $7::smallint[], $8::bytea[], $9::bigint[],
    $10::bigint[], $11::int[], $12::text[], $13::boolean[])
    u (id, run, version, versioning, override, nonce, started, deadline, seq, pause, uncancel)
on conflict (app, id) do update set run = excluded.run, version = excluded.version, status = 1, reason = null, detail = '',
    claim = null, owner = null, epoch = 0, attempts = 0, last_seq = excluded.last_seq, until = excluded.updated,
    deadline = excluded.deadline, created = excluded.created, updated = excluded.updated, started = excluded.started,
    closed = null, cancel = case when excluded.epoch = 1 then null else w.cancel end, intents = null,
    nonce = excluded.nonce, cause = 0, versioning = excluded.versioning, lane = @lane, expires = null,
    pause = excluded.pause, override = excluded.override, problem = null

-- Their inputs: those of the runs `$3`, for the next.
-- name: reset_input
insert into perdure.payload (app, id, run, input)
select $1, u.id, u.run + 1, p.input
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (select input from perdure.payload where app = $1 and id = u.id and run = u.run offset 0) p
on conflict do nothing

-- Copies the first `$4` records of the runs `$3` to the next, as they stand.
-- name: reset_history
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
    intents, version, nonce)
select $1, u.id, u.run + 1, h.seq, h.path, h.kind, h.name, h.at, h.fingerprint, h.outcome, h.data, h.attempt, h.shown,
    h.intents, h.version, h.nonce
from unnest($2::text[], $3::int[], $4::int[]) u (id, run, keep)
cross join lateral (
    select * from perdure.history where app = $1 and id = u.id and run = u.run and seq <= u.keep offset 0) h

-- Sets the events of the runs `$3` as their records have set them (`$5` is their kind), as of `$4`.
-- name: reset_events
insert into perdure.event (app, id, run, name, data, at)
select distinct on (u.id, h.name) $1, u.id, u.run, h.name, h.data, $4::bigint
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (
    select name, data, seq from perdure.history
    where app = $1 and id = u.id and run = u.run and kind = $5 and data is not null offset 0) h
order by u.id, h.name, h.seq desc

-- Which of the runs `$3` have streams.
-- name: reset_streams
select u.id from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (select 1 from perdure.stream where app = $1 and id = u.id and run = u.run limit 1) s

-- What the runs `$3` have received up to their records `$4` counts as received by the next; the rest by nobody or (of those
-- in `$5`) by the next before its first record, as does what came after `$6` and nobody has received.
-- name: reset_mail
insert into perdure.message (app, dest, mid, topic, data, sender, at, taken_run, taken_seq)
select $1, u.id, m.mid, '', '', '', 0,
    case when m.taken_seq <= u.keep or u.dropped then u.run + 1 end,
    case when m.taken_seq <= u.keep then m.taken_seq when u.dropped then 0 end
from unnest($2::text[], $3::int[], $4::int[], $5::boolean[], $6::bigint[]) u (id, run, keep, dropped, since)
cross join lateral (
    select mid, taken_seq from perdure.message
    where app = $1 and dest = u.id
        and (taken_run = u.run or u.dropped and taken_seq is null and at > u.since) offset 0) m
on conflict (app, dest, mid) do update set taken_run = excluded.taken_run, taken_seq = excluded.taken_seq

-- Deletes their wakes.
-- name: reset_wakes
delete from perdure.wake k where k.ctid = any(array(
    select x.ctid from unnest($2::text[]) u (dest)
    cross join lateral (select ctid from perdure.wake where app = $1 and dest = u.dest offset 0) x))

-- Forgets what they waited for.
-- name: reset_watches
delete from perdure.watch k where k.ctid = any(array(
    select x.ctid from unnest($2::text[]) u (waiter)
    cross join lateral (
        select ctid from perdure.watch where app = $1 and waiter = u.waiter and waiter <> '' offset 0) x))
