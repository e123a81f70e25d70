-- One record of one running workflow. `$1` is the app, `$2` to `$4` id, token and run.

-- Locks the run's row by its id alone, compares token and run with the row as it is after the wait, and writes the
-- record if they fit. One that another unit put there first is an error (a null nonce), never a silent loss.
-- name: checkpoint
with l as materialized (
    select claim, run from perdure.workflow where app = $1 and id = $2 for no key update),
h as (
    insert into perdure.history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown,
        intents, version, nonce)
    select $1, $2, l.run, $5::int, $6::text, $7::smallint, $8::text, $9::bigint, $10::bytea, $11::smallint, $12::text,
        $13::int, $14::text, $15::text, $16::text, $17::bytea
    from l where l.claim = $3::bytea and l.run = $4::int
    on conflict (app, id, run, seq) do update
        set nonce = case when history.nonce = excluded.nonce then excluded.nonce end)
select coalesce($18::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint),
    exists (select from l where claim = $3 and run = $4)
