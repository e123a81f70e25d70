-- Batches: orders, their frozen targets, what came of each, and the audit. ?1 is the app, ?2 the batch's key.

-- Inserts a batch without targets, unless its key is taken.
-- name: batch_insert
insert into batch (app, key, verb, options, query, by, reason, rate, state, created, updated, closed, total,
    done, skipped, failed, owner, until, next, nonce)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?9, null, 0, 0, 0, 0, ?10, ?11, 0, ?12)
on conflict do nothing returning key

-- A batch.
-- name: batch_get
select key, verb, options, query, by, reason, rate, state, created, updated, closed, total, done, skipped, failed,
    owner, until, next, nonce
from batch where app = ?1 and key = ?2

-- The latest batches.
-- name: batch_list
select key, verb, options, query, by, reason, rate, state, created, updated, closed, total, done, skipped, failed,
    owner, until, next, nonce
from batch where app = ?1 order by created desc, key limit ?2

-- What changes of a batch.
-- name: batch_change
update batch set state = ?3, updated = ?4, closed = ?5, total = ?6, done = ?7, skipped = ?8, failed = ?9,
    owner = ?10, until = ?11, next = ?12
where app = ?1 and key = ?2

-- How many targets a batch has.
-- name: target_count
select count(*) from batch_target where app = ?1 and batch = ?2

-- Targets after ?3, in the order of ids.
-- name: target_list
select id, run, state, at, detail, new, tries from batch_target
where app = ?1 and batch = ?2 and id > ?3 order by id limit ?4

-- The same of those that came to ?5.
-- name: target_list_of
select id, run, state, at, detail, new, tries from batch_target indexed by batch_target_state
where app = ?1 and batch = ?2 and state = ?5 and id > ?3 order by id limit ?4

-- Whether a target is waiting.
-- name: target_waiting
select 1 from batch_target where app = ?1 and batch = ?2 and id = ?3 and state = 0

-- What came of a target that was waiting.
-- name: target_settle
update batch_target set state = ?5, at = ?3, detail = ?6, new = ?7, tries = tries + 1
where app = ?1 and batch = ?2 and id = ?4

-- Lets those that have failed wait again.
-- name: target_retry
update batch_target indexed by batch_target_state set state = 0, at = null
where app = ?1 and batch = ?2 and state = 3

-- A line of the audit.
-- name: audit_put
insert into audit_line (app, batch, id, nonce, run, at, verb, by, reason, before, after)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) on conflict do nothing

-- The audit of a batch about one id, the batch itself being "".
-- name: audit_list
select batch, id, run, at, verb, by, reason, before, after from audit_line
where app = ?1 and batch = ?2 and id = ?3 order by at, nonce

-- Whether the order with nonce ?3 about a batch was carried out before.
-- name: audit_has
select 1 from audit_line where app = ?1 and batch = ?2 and id = '' and nonce = ?3

-- The batch that was closed first, before ?2.
-- name: batch_old
select key from batch where app = ?1 and closed is not null and closed <= ?2
order by closed limit 1

-- Forgets up to ?3 of the targets of a batch.
-- name: batch_forget_targets
delete from batch_target where app = ?1 and batch = ?2 and id in (
    select id from batch_target where app = ?1 and batch = ?2 order by id limit ?3) returning 1

-- Forgets up to ?3 lines of its audit.
-- name: batch_forget_audit
delete from audit_line where app = ?1 and batch = ?2 and (id, nonce) in (
    select id, nonce from audit_line where app = ?1 and batch = ?2 order by id, nonce limit ?3) returning 1

-- Forgets a batch.
-- name: batch_forget
delete from batch where app = ?1 and key = ?2 and closed is not null returning 1
