-- What is rare: the longer way of a commit, and orders of operators. Each runs in a transaction that has first locked
-- the rows it is about (`lock`), so that what a statement reads here was committed before the lock was granted.

-- Locks rows in the order given, which is by id, and tells what a fence must know of them.
-- name: lock
select w.*
from unnest($2::text[]) u (id)
cross join lateral (
    select id, run, claim, status, nonce from perdure.workflow
    where app = $1 and id = u.id for no key update) w

-- Marks a row as watched, so that whoever closes it or sets its events looks for the watchers.
-- name: watch_mark
update perdure.workflow set watched = true
where app = $1 and id = $2 and not watched

-- Who wrote the records that are about to be written, of those that are there.
-- name: history_nonces
select k.n, h.nonce
from unnest($2::text[], $3::int[], $4::int[]) with ordinality k (id, run, seq, n)
cross join lateral (
    select nonce from perdure.history where app = $1 and id = k.id and run = k.run and seq = k.seq offset 0) h

-- Where the histories of these runs end.
-- name: history_ends
select k.n, h.seq
from unnest($2::text[], $3::int[]) with ordinality k (id, run, n)
cross join lateral (
    select seq from perdure.history where app = $1 and id = k.id and run = k.run order by seq desc limit 1) h

-- Remembers who waits for whom.
-- name: watch_insert
insert into perdure.watch (app, target, waiter)
select $1, u.target, u.waiter from unnest($2::text[], $3::text[]) u (target, waiter) on conflict do nothing

-- Wakes those of the waiters `$3` whose target is closed or gone already.
-- name: watch_missed
insert into perdure.wake (app, dest, nonce)
select distinct $1, u.waiter, u.nonce
from unnest($2::text[], $3::text[], $4::bytea[]) u (target, waiter, nonce)
left join lateral (select status from perdure.workflow where app = $1 and id = u.target offset 0) w on true
where w.status is null or w.status >= 5
on conflict do nothing

-- Wakes the watchers of `$2`.
-- name: wake_watchers
insert into perdure.wake (app, dest, nonce)
select $1, w.waiter, u.nonce
from unnest($2::text[], $3::bytea[]) u (target, nonce)
cross join lateral (select waiter from perdure.watch where app = $1 and target = u.target offset 0) w
on conflict do nothing

-- Tells the open children of `$2` to cancel, but for those that are to be abandoned or waited for. One that watches its
-- parent may have been woken under the same nonce.
-- name: wake_children
insert into perdure.wake (app, dest, nonce, cancel)
select $1, w.id, u.nonce, ''
from unnest($2::text[], $3::bytea[]) u (parent, nonce)
cross join lateral (
    select id from perdure.workflow
    where app = $1 and parent = u.parent and on_parent_close = 'cancel' and status + 0 < 5 offset 0) w
order by w.id
on conflict (app, dest, nonce) do update set cancel = coalesce(wake.cancel, excluded.cancel)

-- Wakes one workflow if it is open.
-- name: wake_one
insert into perdure.wake (app, dest, nonce, cancel)
select $1, $2, $3, $4
where (select w.status from perdure.workflow w where w.app = $1 and w.id = $2) < 5
on conflict do nothing

-- Tells one workflow to cancel if it is open, and a child of `$5`: not who was begun in the place of one.
-- name: wake_child
insert into perdure.wake (app, dest, nonce, cancel)
select $1, $2, $3, $4
from (select status, parent from perdure.workflow where app = $1 and id = $2 offset 0) w
where w.parent = $5 and w.status < 5
on conflict do nothing

-- Deletes all wakes of a workflow that has closed.
-- name: wake_clear
delete from perdure.wake where app = $1 and dest = $2

-- Forgets what a workflow that was ended waited for.
-- name: watch_clear
delete from perdure.watch where app = $1 and waiter = $2 and waiter <> ''

-- Copies the ending run out of the hot row, as `$4` at `$5`; closed then, unless it was before.
-- name: past_run_insert
insert into perdure.past_run (app, id, run, lineage, name, version, status, detail, claim, epoch, attempts, last_seq,
    timeout, deadline, created, updated, started, closed, cancel, parent, parent_run, parent_path, on_parent_close,
    queue, priority, fingerprint, attributes, intents, nonce, versioning, partition, override)
select app, id, run, lineage, name, version, $4, detail, claim, epoch, attempts,
    greatest(last_seq, (select h.seq from perdure.history h
        where h.app = $1 and h.id = $2 and h.run = $3 order by h.seq desc limit 1)),
    timeout, deadline, created, $5, started, coalesce(closed, $5), cancel, parent, parent_run, parent_path,
    on_parent_close, queue, priority, fingerprint, attributes, intents, nonce, versioning, partition, override
from perdure.workflow where app = $1 and id = $2 and run = $3

-- Who inserted earlier runs: tells a repeated start from another's.
-- name: past_run_nonces
select k.n, p.nonce
from unnest($2::text[], $3::int[]) with ordinality k (id, run, n)
cross join lateral (select nonce from perdure.past_run where app = $1 and id = k.id and run = k.run offset 0) p

-- Begins the next run of an id in its row; the run before it was copied to past_run.
-- name: workflow_continue
update perdure.workflow set run = $3, lineage = $4, name = $5, version = $6, status = $7, claim = $8, owner = $9,
    epoch = $10, last_seq = 0, until = $11, timeout = $12, deadline = $13, created = $14, updated = $14, started = $15,
    parent = $16, parent_run = $17, parent_path = $18, on_parent_close = $19, queue = $20, priority = $21,
    fingerprint = $22, attributes = $23, intents = $24, nonce = $25, versioning = $26, partition = $27, lane = $28,
    expires = $29, override = $30, cause = 0, problem = null,
    reason = $31, detail = '', attempts = 0, closed = null, cancel = null, pause = case when closed is null then pause end
where app = $1 and id = $2

-- The next run of a child with a timeout of its own: what bounds its parent bounds it too, unless that is past at `$3`.
-- name: workflow_bounded
update perdure.workflow w set deadline = (
    select b.deadline from (
        select p.deadline from perdure.workflow p where p.app = $1 and p.id = w.parent and p.run = w.parent_run
        union all
        select p.deadline from perdure.past_run p where p.app = $1 and p.id = w.parent and p.run = w.parent_run) b
    where b.deadline > $3::bigint)
where w.app = $1 and w.id = $2

-- What a workflow can be searched by from now on.
-- name: workflow_attributes
update perdure.workflow set attributes = $3 where app = $1 and id = $2

-- How a process stands after its burst: until `$3` or its deadline, in the words `$4`, with `$5` deaths that count.
-- name: workflow_stand
update perdure.workflow set
    until = case status when 1 then until when 3 then least($3::bigint, deadline) else $3::bigint end, detail = $4,
    attempts = $5, problem = $6
where app = $1 and id = $2

-- Wakes a workflow that has mail of the topic `$4` which nobody has taken.
-- name: wake_of_mail
insert into perdure.wake (app, dest, nonce)
select $1, $2, $3 where exists (
    select from perdure.message where app = $1 and dest = $2 and taken_seq is null and topic = $4)
on conflict do nothing

-- Copies the first `$4` records of a run to the run `$6` of `$5`, as they stand.
-- name: history_copy
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
    intents, version, nonce)
select app, $5, $6::int, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version, nonce
from perdure.history where app = $1 and id = $2 and run = $3 and seq <= $4

-- Writes a record of a run whose row is locked.
-- name: history_mark
insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
    intents, version, nonce)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)

-- Whether a record after `$4` was written with the nonce `$5`.
-- name: history_has
select 1 from perdure.history where app = $1 and id = $2 and run = $3 and seq > $4 and nonce = $5 limit 1

-- Sets the events of a run as its records have set them (`$5` is their kind), as of `$4`.
-- name: event_copy
insert into perdure.event (app, id, run, name, data, at)
select distinct on (name) app, id, run, name, data, $4::bigint from perdure.history
where app = $1 and id = $2 and run = $3 and kind = $5 and data is not null order by name, seq desc

-- What the run `$3` has received up to its record `$5` counts as received by the run `$4`; the rest by nobody.
-- name: message_untake
update perdure.message set taken_run = case when taken_seq <= $5 then $4::int end,
    taken_seq = case when taken_seq <= $5 then taken_seq end
where app = $1 and dest = $2 and taken_run = $3

-- Lets a run that was just begun go on from `$3` records, with the time `$4` at which they began, until `$5` at most.
-- name: workflow_kept
update perdure.workflow set last_seq = $3, started = coalesce($4::bigint, started),
    deadline = coalesce($5::bigint, deadline)
where app = $1 and id = $2

-- Takes over from the run `$3` before it the deaths `$4`, and a command to cancel unless `$5`.
-- name: workflow_rewound
update perdure.workflow set attempts = $4, cancel = case when not $5::boolean then (
    select p.cancel from perdure.past_run p where p.app = $1 and p.id = $2 and p.run = $3) end
where app = $1 and id = $2

-- Queues an open workflow at `$4` under the token `$3`, of version `$5` from now on (null: its own); `$6`: before all
-- others. `$7`: its last record. `$8`: as it was before it was paused.
-- name: workflow_reopen
update perdure.workflow w
set status = case when $8::boolean and w.lane is not null and w.until > $4::bigint then 0 else 1 end,
    reason = null, detail = '', claim = $3, owner = null, pause = null,
    until = case when $6::boolean then 0 when $8 and w.lane is not null then coalesce(w.until, $4) else $4 end,
    updated = $4, attempts = case when $8 then w.attempts else 0 end, cause = case when $8 then w.cause else 0 end,
    version = coalesce($5, version), queue = case when $6 then null else queue end, last_seq = $7,
    lane = case when $6 or w.status <> 4 or $8 and w.lane is null then null
        when $8 and w.until > $4 and w.queue is not null then E'\x01' else @lane end
where app = $1 and id = $2

-- Holds what nobody holds at `$4` under the token `$3`, as `$5` says. What has begun and is in no line keeps its slot,
-- and is claimed at its deadline; the rest stands in a lane where nobody is claimed from, and keeps its time.
-- name: workflow_pause
update perdure.workflow set status = 4, reason = 'paused', detail = $5, claim = $3, updated = $4, pause = null,
    until = case when started is null or lane is not null or status = 4 then until else deadline end,
    lane = case when started is null or lane is not null or status = 4 then E'\x01\x01' end, last_seq = $6
where app = $1 and id = $2

-- Notes that whoever holds it is to pause it; null takes that back.
-- name: workflow_pause_told
update perdure.workflow set pause = $3 where app = $1 and id = $2

-- Counts the deaths of what was just released anew.
-- name: workflow_anew
update perdure.workflow set attempts = 0 where app = $1 and id = $2

-- The input of the next run.
-- name: payload_insert
insert into perdure.payload (app, id, run, input) values ($1, $2, $3, $4) on conflict do nothing

-- Queues what is of version `$4` and held for one of the reasons since `$5` at the latest, whose back-off has passed, to be claimed and
-- replayed again. Without the token of who held it, so that a late second try of the hold is refused. By the index that
-- knows the status (and without a word of the owner, whom nothing held has): waits without a time, which may be all that
-- is open, stand beside them in the other.
-- name: release_held
with t as materialized (
    select coalesce($3::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
h as materialized (
    select id from perdure.workflow w
    where app = $1 and version = $4 and status = 4 and parent_run >= 0 and lane is null and until is null
        and reason = any($2::text[])
        and updated <= coalesce($5::bigint, (select now from t)) and coalesce((
            select p.next from perdure.problem p where p.app = $1 and p.id = w.id and p.run = w.run and p.kind = w.reason
                and p.path = '' and p.version = $4), 0) <= (select now from t)
    for no key update skip locked)
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
select $1, h.id, 1, '', '', '', 1, 0, 0, '', '' from h
on conflict (app, id) do update
set status = 1, reason = null, detail = '', claim = null, until = (select now from t), updated = (select now from t),
    lane = @lane
returning w.id

-- Ends a workflow by command: cancelled where nobody holds it, or terminated at once (then under another token).
-- name: workflow_end
update perdure.workflow set status = $3, claim = $4, cancel = $5, detail = $6, closed = $7, updated = $7, owner = null,
    until = null, lane = null, reason = null, last_seq = greatest(last_seq, (
        select h.seq from perdure.history h
        where h.app = $1 and h.id = $2 and h.run = workflow.run order by h.seq desc limit 1))
where app = $1 and id = $2

-- Which of these messages arrived (by id or by key), and what their destinations are.
-- name: message_fate
select u.n, m.mid is not null or k.mid is not null, w.status
from unnest($2::text[], $3::bytea[], $4::text[]) with ordinality u (dest, mid, key, n)
left join lateral (select mid from perdure.message where app = $1 and dest = u.dest and mid = u.mid offset 0) m on true
left join lateral (
    select mid from perdure.message
    where app = $1 and dest = u.dest and key = u.key and key is not null order by key limit 1) k on true
left join lateral (select status from perdure.workflow where app = $1 and id = u.dest offset 0) w on true

-- The time of the database.
-- name: clock
select (extract(epoch from statement_timestamp()) * 1000000)::bigint
