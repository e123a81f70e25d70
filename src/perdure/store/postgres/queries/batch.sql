-- Batches: orders, their frozen targets, what came of each, and the audit. `$1` is the app, `$2` the batch's key.

-- Inserts a batch without targets, unless its key is taken.
-- name: batch_insert
insert into perdure.batch (app, key, verb, options, query, by, reason, rate, state, created, updated, closed, total,
    done, skipped, failed, owner, until, next, nonce)
values ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $9, null, 0, 0, 0, 0, $10, $11, 0, $12)
on conflict do nothing returning key

-- A batch.
-- name: batch_get
select key, verb, options, query, by, reason, rate, state, created, updated, closed, total, done, skipped, failed,
    owner, until, next, nonce
from perdure.batch where app = $1 and key = $2

-- The same, kept from others until the end of the transaction.
-- name: batch_lock
select key, verb, options, query, by, reason, rate, state, created, updated, closed, total, done, skipped, failed,
    owner, until, next, nonce
from perdure.batch where app = $1 and key = $2 for update

-- The latest batches.
-- name: batch_list
select key, verb, options, query, by, reason, rate, state, created, updated, closed, total, done, skipped, failed,
    owner, until, next, nonce
from perdure.batch where app = $1 order by created desc, key limit $2

-- What changes of a batch.
-- name: batch_change
update perdure.batch set state = $3, updated = $4, closed = $5, total = $6, done = $7, skipped = $8, failed = $9,
    owner = $10, until = $11, next = $12
where app = $1 and key = $2

-- Targets after `$3`, in the order of ids.
-- name: target_list
select id, run, state, at, detail, new, tries from perdure.batch_target
where app = $1 and batch = $2 and id > $3 order by id limit $4

-- The same of those that came to `$5`.
-- name: target_list_of
select id, run, state, at, detail, new, tries from perdure.batch_target
where app = $1 and batch = $2 and state = $5 and id > $3 order by id limit $4

-- Which of these targets are waiting.
-- name: target_waiting
select t.id
from unnest($3::text[]) u (id)
cross join lateral (
    select id from perdure.batch_target where app = $1 and batch = $2 and id = u.id and state = 0 offset 0) t

-- What came of targets that were waiting.
-- name: target_settle
insert into perdure.batch_target as t (app, batch, id, run, state, at, detail, new, tries)
select $1, $2, u.id, 0, u.state, $3, u.detail, u.new, 1
from unnest($4::text[], $5::smallint[], $6::text[], $7::text[]) u (id, state, detail, new)
on conflict (app, batch, id) do update
set state = excluded.state, at = excluded.at, detail = excluded.detail, new = excluded.new, tries = t.tries + 1

-- Lets those that have failed wait again.
-- name: target_retry
update perdure.batch_target set state = 0, at = null where app = $1 and batch = $2 and state = 3

-- Lines of the audit.
-- name: audit_put
insert into perdure.audit_line (app, batch, id, nonce, run, at, verb, by, reason, before, after)
select $1, u.* from unnest($2::text[], $3::text[], $4::bytea[], $5::int[], $6::bigint[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[]) u
on conflict do nothing

-- The audit of a batch: of these ids, the batch itself being "".
-- name: audit_list
select a.batch, a.id, a.run, a.at, a.verb, a.by, a.reason, a.before, a.after
from unnest($3::text[]) u (id)
cross join lateral (
    select * from perdure.audit_line where app = $1 and batch = $2 and id = u.id order by at, nonce offset 0) a

-- Whether the order with nonce `$3` about a batch was carried out before.
-- name: audit_has
select 1 from perdure.audit_line where app = $1 and batch = $2 and id = '' and nonce = $3

-- The batch that was closed first, before `$2`.
-- name: batch_old
select key from perdure.batch where app = $1 and closed is not null and closed <= $2 order by closed limit 1

-- Forgets up to `$3` of the targets of a batch.
-- name: batch_forget_targets
delete from perdure.batch_target t where t.ctid = any(array(
    select ctid from perdure.batch_target where app = $1 and batch = $2 order by id limit $3)) returning 1

-- Forgets up to `$3` lines of its audit.
-- name: batch_forget_audit
delete from perdure.audit_line t where t.ctid = any(array(
    select ctid from perdure.audit_line where app = $1 and batch = $2 order by id, nonce limit $3)) returning 1

-- Forgets a batch.
-- name: batch_forget
delete from perdure.batch where app = $1 and key = $2 and closed is not null returning 1
