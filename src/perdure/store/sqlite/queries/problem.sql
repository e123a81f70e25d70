-- Attempts that did not get a run on (see docs/internals/problems.md). ?1 is the app, ?2 the id, ?3 the run.

-- A failed attempt, told by the unit with the nonce ?13: which one it was (?10; 0: one more than before), at ?11, the next at ?12,
-- or (?14) not before the back-off has passed. A second try changes nothing.
-- name: problem_put
insert into problem (app, id, run, kind, path, version, name, text, data, attempt, first, last, next, nonce)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, max(?10, 1), ?11, ?11, case when ?14 then ?11 else ?12 end, ?13)
on conflict (app, id, run, kind, path, version) do update
set name = excluded.name, text = excluded.text, data = excluded.data, last = excluded.last, cleared = null,
    nonce = excluded.nonce, first = case when cleared is null then first else excluded.first end,
    attempt = case when ?10 > 0 then ?10 when cleared is null then attempt + 1 else 1 end,
    next = case when not ?14 then excluded.next
        when cleared is null then excluded.last + (5000000 << min(attempt - 1, 9)) else excluded.last end
where nonce <> excluded.nonce

-- All of a run is over at ?6, but steps at the paths ?4 (a JSON array) and what the unit with the nonce ?5 has told.
-- name: problem_over
update problem set cleared = ?6, next = null
where app = ?1 and id = ?2 and run = ?3 and cleared is null and nonce <> ?5
    and not (kind = 'step_failed' and path in (select value from json_each(?4)))

-- The step at ?4 was given its outcome by a person, at ?5.
-- name: problem_given
update problem set cleared = ?5, next = null
where app = ?1 and id = ?2 and run = ?3 and kind = 'step_failed' and path = ?4 and cleared is null

-- Then the row tells of the latest of what is left.
-- name: problem_left
update workflow set problem = (
    select p.kind from problem p where p.app = ?1 and p.id = ?2 and p.run = ?3 and p.cleared is null
    order by p.last desc, p.kind limit 1)
where app = ?1 and id = ?2 and run = ?3

-- What the row of the run tells from now on.
-- name: problem_mark
update workflow set problem = ?4 where app = ?1 and id = ?2 and run = ?3

-- The same for a run that takes too long in a turn, under the claim ?4.
-- name: problem_turn
update workflow set problem = 'turn_timeout'
where app = ?1 and id = ?2 and run = ?3 and claim = ?4 and closed is null returning version

-- The former owner ?3 has died with it at ?4.
-- name: problem_died
insert into problem (app, id, run, kind, path, version, name, text, attempt, first, last, nonce)
select f.app, f.id, f.run, 'executor_died', '', f.version, '', coalesce(
        (select 'executor ' || i.executor || ' died (pid ' || i.pid || ' on ' || i.host || ')' from incarnation i where i.id = ?3),
        'its executor died'), max(f.attempts, 1), ?4, ?4, coalesce(f.claim, ?3)
from workflow f where f.app = ?1 and f.id = ?2
on conflict (app, id, run, kind, path, version) do update
set text = excluded.text, attempt = excluded.attempt, last = excluded.last, cleared = null, nonce = excluded.nonce,
    first = case when cleared is null then first else excluded.first end

-- All problems of a workflow, the oldest first.
-- name: problem_of
select id, run, kind, path, version, name, text, data, attempt, first, last, next, cleared
from problem where app = ?1 and id = ?2 order by run, first, kind, path, version

-- When the next of what is held under version ?2 since ?4 at the latest, for one of the reasons ?3, may be tried again.
-- name: held_due
select min(p.next)
from workflow f indexed by workflow_problem cross join problem p on p.app = f.app and p.id = f.id and p.run = f.run
    and p.kind = f.reason and p.path = '' and p.version = ?2
where f.app = ?1 and f.version = ?2 and f.problem is not null and f.status < 5 and f.status = 4 and f.lane is null
    and f.until is null and f.reason in (select value from json_each(?3)) and f.updated <= ?4

-- Up to ?4 workflows of other versions than ?2 that are held for one of the reasons ?3, may move, and may be tried by this version at
-- ?5.
-- name: held_elsewhere
select f.id from workflow f indexed by workflow_problem
where f.app = ?1 and f.problem is not null and f.status < 5 and f.status = 4 and f.version <> ?2 and f.versioning <> 1
    and f.reason in (select value from json_each(?3))
    and not exists (
        select 1 from trial t where t.app = ?1 and t.id = f.id
            and t.run = f.run and t.last_seq = f.last_seq and t.version = ?2)
    and not exists (
        select 1 from problem p where p.app = ?1 and p.id = f.id and p.run = f.run and p.kind = f.reason and p.path = ''
            and p.version = ?2 and p.cleared is null and p.next > ?5)
order by f.id limit ?4
