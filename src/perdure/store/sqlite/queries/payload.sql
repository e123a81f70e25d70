-- Inputs and outcomes. ?1 is the app, ?2 the id, ?3 the run.

-- The input of a run, at its start.
-- name: payload_insert
insert into payload (app, id, run, input) values (?1, ?2, ?3, ?4)

-- The outcome of a run, at its close.
-- name: payload_close
update payload set outcome = ?4, output = ?5 where app = ?1 and id = ?2 and run = ?3

-- The input of a run.
-- name: payload_input
select id, run, input from payload where app = ?1 and id = ?2 and run = ?3
