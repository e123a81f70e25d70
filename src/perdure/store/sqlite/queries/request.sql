-- Questions that only an executor with the code can answer. ?1 is the app, ?2 the nonce.

-- Asks, once per nonce; nobody waits for the answer after ?7.
-- name: request_put
insert into request (app, nonce, version, kind, body, at, until) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
on conflict do nothing

-- What is asked of executors of version ?2, oldest first.
-- name: request_open
select nonce, kind, body from request
where app = ?1 and version = ?2 and answer is null and until > ?3 order by at, nonce limit ?4

-- Answers; the first answer counts.
-- name: request_answer
update request set owner = ?3, answer = ?4 where app = ?1 and nonce = ?2 and answer is null

-- The answer, null if there is none yet.
-- name: request_answer_of
select answer from request where app = ?1 and nonce = ?2

-- Forgets a question.
-- name: request_forget
delete from request where app = ?1 and nonce = ?2

-- Forgets questions that nobody waits for any more.
-- name: request_expire
delete from request where app = ?1 and version = ?2 and answer is null and until <= ?3
