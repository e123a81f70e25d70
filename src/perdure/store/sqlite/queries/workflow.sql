-- The hot row. ?1 is always the app, ?2 the workflow id.

-- What a batch must know of a workflow before it writes: the fence, and whether it is open.
-- name: workflow_head
select id, run, status, claim, nonce, parent from workflow where app = ?1 and id = ?2

-- The same of many: ?2 is a JSON array of ids. For a thousand rows eight times faster than one by one, for one slower.
-- name: workflow_heads
select f.id, f.run, f.status, f.claim, f.nonce, f.parent
from json_each(?2) j cross join workflow f on f.app = ?1 and f.id = j.value

-- Inserts a workflow; that the id is free was seen in the same transaction.
-- name: workflow_insert
insert into workflow (app, id, run, lineage, name, version, status, claim, owner, epoch, last_seq, until, timeout,
    deadline, created, updated, started, parent, parent_run, parent_path, on_parent_close, queue, priority,
    fingerprint, attributes, intents, nonce, versioning, partition, lane, expires)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
    ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)

-- When the latest run of an id was closed.
-- name: workflow_closed
select closed from workflow where app = ?1 and id = ?2

-- The latest run of an id, as it is shown: the history is ahead of the row, which no record alone touches.
-- name: workflow_get
select id, run, lineage, name, status, version, created, updated, reason, detail, claim, owner, epoch, attempts,
    max(last_seq, coalesce((select h.seq from history h
        where h.app = workflow.app and h.id = workflow.id and h.run = workflow.run order by h.seq desc limit 1), 0)),
    until, deadline, timeout, started, closed, cancel, parent, parent_run, parent_path, on_parent_close,
    queue, priority, fingerprint, attributes, intents, cause, versioning, partition, lane, expires, pause, problem,
    override,
    (select min(k.cancel) from wake k where k.app = workflow.app and k.dest = workflow.id)
from workflow where app = ?1 and id = ?2

-- Gives the claim up (park, hold, release) or closes; the token stays, so that a repeated write is recognised. A pause
-- that was taken back meanwhile only hands it back. What was moved for one turn (`override` of 10 or more) comes to rest.
-- name: workflow_rest
update workflow set updated = ?3, owner = null, closed = ?8,
    status = case when ?5 = 'paused' and pause is null then 1 else ?4 end,
    reason = case when ?5 = 'paused' and pause is null then null else ?5 end,
    detail = case when ?5 = 'paused' and pause is null then '' else ?6 end,
    until = case when ?5 = 'paused' and pause is null then ?3 else ?7 end,
    pause = case when ?5 = 'paused' then null else pause end,
    cause = case when ?4 = 1 then 2 else 0 end, attempts = case when ?4 = 3 then 0 else attempts end,
    versioning = case when ?4 = 3 and override >= 10 then override - 10 else versioning end,
    override = case when ?4 = 3 and override >= 10 then null else override end,
    last_seq = coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = workflow.run), 0)
where app = ?1 and id = ?2

-- Counts the deaths of what was just released anew.
-- name: workflow_anew
update workflow set attempts = 0 where app = ?1 and id = ?2

-- Begins the next run of an id in its row; the run before it was copied to past_run.
-- name: workflow_continue
update workflow set run = ?3, lineage = ?4, name = ?5, version = ?6, status = ?7, claim = ?8, owner = ?9, epoch = ?10,
    last_seq = ?11, until = ?12, timeout = ?13, deadline = ?14, created = ?15, updated = ?15, started = ?16,
    parent = ?17, parent_run = ?18, parent_path = ?19, on_parent_close = ?20, queue = ?21, priority = ?22,
    fingerprint = ?23, attributes = ?24, intents = ?25, nonce = ?26, versioning = ?27, partition = ?28, lane = ?29,
    expires = ?30, override = ?31, cause = 0, problem = null,
    reason = ?32, detail = '', attempts = 0, closed = null, cancel = null, pause = case when closed is null then pause end
where app = ?1 and id = ?2

-- The next run of a child with a timeout of its own: what bounds its parent bounds it too, unless that is past at ?3.
-- name: workflow_bounded
update workflow set deadline = (
    select b.deadline from (
        select p.deadline from workflow p where p.app = ?1 and p.id = workflow.parent and p.run = workflow.parent_run
        union all
        select p.deadline from past_run p where p.app = ?1 and p.id = workflow.parent and p.run = workflow.parent_run) b
    where b.deadline > ?3)
where app = ?1 and id = ?2

-- What a workflow can be searched by from now on.
-- name: workflow_attributes
update workflow set attributes = ?3 where app = ?1 and id = ?2

-- How a process stands after its burst: until ?3 or its deadline, in the words ?4, with ?5 deaths that count.
-- name: workflow_stand
update workflow set until = case status when 1 then until when 3 then coalesce(min(?3, deadline), ?3, deadline) else ?3 end,
    detail = ?4, attempts = ?5, problem = ?6
where app = ?1 and id = ?2

-- Notes the reason of a cancel command that the holder has acted on, so that it outlives the wake row.
-- name: workflow_cancel_noted
update workflow set cancel = coalesce(cancel, ?3) where app = ?1 and id = ?2

-- Unclaimed workflows of one version whose time has come, oldest due first.
-- name: workflow_due
select until, id, queue, attempts >= 2, version > '' from workflow
where app = ?1 and owner is null and version = ?4 and lane is null and until <= ?2 and status < 5
    and (attempts < 2 or ?5) and (queue is null or queue not in (select value from json_each(?6)))
order by until, id limit ?3

-- Unclaimed workflows that have a reason to look again, among those for whom the ?8 wakes are that are for ids after ?7;
-- due since they began to wait, so that no backlog starves them.
-- name: workflow_woken
select distinct f.updated, f.id, f.queue, f.attempts >= 2, f.version > ''
from (select * from wake where app = ?1 and dest > ?7 order by dest, nonce limit ?8) w
cross join workflow f on f.app = ?1 and f.id = w.dest
where f.version in (?4, ?3)
    and (f.status = 3 or f.reason = 'no_exit' or (w.cancel is not null and (f.status in (0, 1) or f.reason = 'paused') and f.lane is null))
    and (f.attempts < 2 or ?5) and (f.queue is null or f.queue not in (select value from json_each(?6)))
order by f.updated, f.id limit ?2

-- Whether one of the versions ?2 and ?3 is woken (as above, by ?4 and ?5; no order is asked for), and when the next
-- unclaimed one of each becomes due.
-- name: workflow_claimable
select
    exists (
        select 1 from (select * from wake where app = ?1 and dest > ?4 order by dest, nonce limit ?5) w
        cross join workflow f on f.app = ?1 and f.id = w.dest
        where f.version in (?3, ?2)
            and (f.status = 3 or f.reason = 'no_exit'
                or (w.cancel is not null and (f.status in (0, 1) or f.reason = 'paused') and f.lane is null))),
    (select until from workflow
    where app = ?1 and owner is null and version = ?3 and lane is null and until is not null and status < 5
    order by until limit 1),
    (select until from workflow
    where app = ?1 and owner is null and version = ?2 and lane is null and until is not null and status < 5
    order by until limit 1)

-- Running workflows of one owner.
-- name: workflow_owned
select id, run, claim from workflow indexed by workflow_open where app = ?1 and owner = ?2 and status < 5

-- The same of one version, running.
-- name: workflow_held
select id, run from workflow indexed by workflow_open where app = ?1 and owner = ?2 and version = ?3 and status < 5 and status = 2

-- The same of one version, of fewer than ?6 deaths (?5 = 0) or of so many (?5 = 1): how many deaths in a row each was in
-- flight at, none if it got anywhere under its claim, that is, if a record came after it that is more than an attempt, a
-- cancel, an intent or a decision.
-- name: workflow_orphans
select id, case when attempts = 0 or exists (
        select 1 from history h where h.app = workflow.app and h.id = workflow.id and h.run = workflow.run
            and h.seq > workflow.last_seq and h.kind not in (2, 10, 11, 13, 17)) then 0 else attempts end as tries,
    queue
from workflow indexed by workflow_open where app = ?1 and owner = ?2 and version = ?3 and status < 5 and (tries >= ?6) = ?5
    and (queue is null or queue not in (select value from json_each(?7)))
order by id limit ?4

-- The next owner after ?2.
-- name: workflow_next_owner
select min(owner) from workflow indexed by workflow_open where app = ?1 and owner > ?2 and status < 5

-- Takes a workflow: a new holder and token; the first claim starts its clock and gives it the claimer's version.
-- `last_seq` moves with changes of state only, not with each checkpoint; whoever takes a run learns the true one.
-- A command to cancel among its wakes, which go, stays known in the row. ?5: the deaths to be noted, null to leave them;
-- ?8: whether whoever held it died.
-- name: workflow_take
update workflow set status = 2, owner = ?3, claim = ?4, epoch = epoch + 1, attempts = coalesce(?5, attempts),
    cause = case when ?8 then 1 else cause end, problem = case when ?8 then 'executor_died' else problem end,
    version = case when started is null and ?6 <> '' then ?6 else version end,
    deadline = case when started is null and timeout is not null
        then min(coalesce(deadline, 9223372036854775807), ?7 + timeout) else deadline end,
    last_seq = coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = workflow.run), 0),
    started = coalesce(started, ?7), updated = ?7, until = null, lane = null, expires = null, reason = null,
    detail = '', cancel = coalesce(cancel, (select min(w.cancel) from wake w where w.app = ?1 and w.dest = ?2))
where app = ?1 and id = ?2

-- What a claimer gets.
-- name: workflow_claimed
select f.id, f.run, f.lineage, f.name, f.status, f.version, f.created, f.updated, f.reason, f.detail, f.claim, f.owner,
    f.epoch, f.attempts, f.last_seq, f.until, f.deadline, f.timeout, f.started, f.closed, f.cancel, f.parent,
    f.parent_run, f.parent_path, f.on_parent_close, f.queue, f.priority, f.fingerprint, f.attributes, f.intents,
    f.cause, f.versioning, f.partition, f.lane, f.expires, f.pause, f.problem, f.override,
    p.input, exists (select 1 from message m where m.app = f.app and m.dest = f.id and m.taken_seq is null)
from workflow f join payload p on p.app = f.app and p.id = f.id and p.run = f.run
where f.app = ?1 and f.id = ?2

-- Ends a workflow by command: cancelled where nobody holds it, or terminated at once (then under another token).
-- name: workflow_end
update workflow set status = ?3, claim = ?4, cancel = ?5, detail = ?6, closed = ?7, updated = ?7, owner = null,
    until = null, lane = null, reason = null,
    last_seq = coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = workflow.run), 0)
where app = ?1 and id = ?2

-- Queues what is of version ?4 and held for one of the reasons (a JSON array) since ?5 at the latest, whose back-off has passed, to be
-- claimed and replayed again. Without the token of who held it, so that a late second try of the hold is refused. By the index
-- that knows the status: waits without a time, which may be all that is open, stand beside them in the other.
-- name: workflow_release_held
update workflow indexed by workflow_kind set status = 1, reason = null, detail = '', claim = null, until = ?3, updated = ?3,
    lane = queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648)
where app = ?1 and owner is null and version = ?4 and lane is null and until is null and status = 4 and parent_run >= 0 and reason in (select value from json_each(?2))
    and updated <= ?5 and coalesce((
        select p.next from problem p where p.app = ?1 and p.id = workflow.id and p.run = workflow.run
            and p.kind = workflow.reason and p.path = '' and p.version = ?4), 0) <= ?3
returning id

-- How a closed workflow ended.
-- name: workflow_ended
select f.id, f.run, f.lineage, f.name, f.status, f.version, f.created, f.updated, f.reason, f.detail, f.claim, f.owner,
    f.epoch, f.attempts, f.last_seq, f.until, f.deadline, f.timeout, f.started, f.closed, f.cancel, f.parent,
    f.parent_run, f.parent_path, f.on_parent_close, f.queue, f.priority, f.fingerprint, f.attributes, f.intents,
    f.cause, f.versioning, f.partition, f.lane, f.expires, f.pause, f.problem, f.override,
    p.outcome, p.output
from workflow f join payload p on p.app = f.app and p.id = f.id and p.run = f.run
where f.app = ?1 and f.id = ?2 and f.status >= 5

-- The next app after ?1 by name, null if none: apps are few, their workflows are not.
-- name: app_next
select min(app) from workflow where app > ?1

-- Lets a run that was just begun go on from ?3 records, with the time ?4 at which they began, until ?5 at most.
-- name: workflow_kept
update workflow set last_seq = ?3, started = coalesce(?4, started), deadline = coalesce(?5, deadline)
where app = ?1 and id = ?2

-- Takes over from the run ?3 before it the deaths ?4, and a command to cancel unless ?5.
-- name: workflow_rewound
update workflow set attempts = ?4, cancel = case when not ?5 then (
    select p.cancel from past_run p where p.app = ?1 and p.id = ?2 and p.run = ?3) end
where app = ?1 and id = ?2

-- Queues an open workflow at ?4 under the token ?3, of version ?5 from now on (null: its own); ?6: before all others;
-- ?7: as it was before it was paused.
-- name: workflow_reopen
update workflow set status = case when ?7 and lane is not null and until > ?4 then 0 else 1 end,
    reason = null, detail = '', claim = ?3, owner = null, pause = null,
    until = case when ?6 then 0 when ?7 and lane is not null then coalesce(until, ?4) else ?4 end,
    updated = ?4, attempts = case when ?7 then attempts else 0 end, cause = case when ?7 then cause else 0 end,
    version = coalesce(?5, version), queue = case when ?6 then null else queue end,
    lane = case when ?6 or status <> 4 or (?7 and lane is null) then null
        when ?7 and until > ?4 and queue is not null then char(1)
        else queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648) end,
    last_seq = coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = workflow.run), 0)
where app = ?1 and id = ?2

-- Holds what nobody holds at ?4 under the token ?3, as ?5 says. What has begun and is in no line keeps its slot, and is
-- claimed at its deadline; the rest stands in a lane where nobody is claimed from, and keeps its time.
-- name: workflow_pause
update workflow set status = 4, reason = 'paused', detail = ?5, claim = ?3, updated = ?4, pause = null,
    until = case when started is null or lane is not null or status = 4 then until else deadline end,
    lane = case when started is null or lane is not null or status = 4 then char(1, 1) end, last_seq = ?6
where app = ?1 and id = ?2

-- Notes that whoever holds it is to pause it; ?3 null takes that back.
-- name: workflow_pause_told
update workflow set pause = ?3 where app = ?1 and id = ?2
