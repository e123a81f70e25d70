-- What is written within a transaction of somebody else's connection, under whatever settings it has.

-- The record of a transaction, as the last statement before its commit. Locks the run's row by its id alone and keeps it
-- until the commit: who asks what became of it waits for that lock. The record before it must be there; a snapshot older
-- than this statement may not see it, and is asked for what was there ($19) before the transaction began. A commit that
-- the server does not wait for would let later records overtake this one in a crash.
-- name: within_record
with l as materialized (
    select claim, run from perdure.workflow where app = $1 and id = $2 for no key update),
z as materialized (
    select l.run from l
    where l.claim = $3::bytea and l.run = $4::int and (case
        when current_setting('transaction_isolation') = 'read committed' then $5::int - 1 else $19::int end = 0
        or exists (
            select from perdure.history
            where app = $1 and id = $2 and run = $4 and seq = case
                when current_setting('transaction_isolation') = 'read committed' then $5::int - 1 else $19::int end))),
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select $1, $2, z.run, $5::int, $6::text, $7::smallint, $8::text, $9::bigint, $10::bytea, $11::smallint, $12::text,
        $13::int, $14::text, $15::text, $16::text, $17::bytea
    from z
    returning seq)
select coalesce($18::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
    exists (select from h),
    case when current_setting('synchronous_commit') = 'off'
        then set_config('synchronous_commit', 'on', true) end

-- Closes a workflow of a queue if it is not begun `$3` microseconds after it may be.
-- name: within_expires
update perdure.workflow set expires = until + $3::bigint where app = $1 and id = $2

-- Waits until no transaction of another connection holds the run's row.
-- name: within_lock
select run from perdure.workflow where app = $1 and id = $2 for no key update

-- Who wrote a record.
-- name: within_wrote
select nonce from perdure.history where app = $1 and id = $2 and run = $3 and seq = $4

-- Tells those who listen, if and when the caller's transaction commits.
-- name: within_tell
select pg_notify($1::text, '')

-- Which database this is: of the server that runs, when it started; and the database's oid in it.
-- name: place
select extract(epoch from pg_postmaster_start_time())::text, (select oid::text from pg_database where datname = current_database())
