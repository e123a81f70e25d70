-- Questions that only an executor with the code can answer. `$1` is the app, `$2` the nonce.

-- Asks, once per nonce; nobody waits for the answer after `$6` microseconds from now (`$7`, or the database's). What
-- nobody waits for any more is forgotten.
-- name: request_put
with t as materialized (
    select coalesce($7::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
old as (
    delete from perdure.request
    where app = $1 and version = $3 and answer is null and until <= (select now from t))
insert into perdure.request (app, nonce, version, kind, body, at, until)
select $1, $2, $3, $4, $5, t.now, t.now + $6::bigint from t
on conflict do nothing

-- What is asked of executors of version `$2`, oldest first.
-- name: request_open
with t as materialized (
    select coalesce($3::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now)
select nonce, kind, body from perdure.request
where app = $1 and version = $2 and answer is null and until > (select now from t) order by at, nonce limit $4

-- Answers; the first answer counts.
-- name: request_answer
update perdure.request set owner = $3, answer = $4 where app = $1 and nonce = $2 and coalesce(answer, '') = ''

-- The answer, which is read once.
-- name: request_answer_of
delete from perdure.request where app = $1 and nonce = $2 and answer is not null returning answer
