-- Attempts that did not get a run on (see docs/internals/problems.md). `$1` is the app, `$2` the id, `$3` the run. Whoever writes
-- here holds the lock of the workflow's row.

-- A failed attempt, told by the unit with the nonce `$13`: which one it was (`$10`; 0: one more than before), at `$11`, the next at
-- `$12`, or (`$14`) not before the back-off has passed. A second try changes nothing.
-- name: problem_put
insert into perdure.problem as p (app, id, run, kind, path, version, name, text, data, attempt, first, last, next, nonce)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, greatest($10::int, 1), $11::bigint, $11,
    case when $14::boolean then $11 else $12::bigint end, $13)
on conflict (app, id, run, kind, path, version) do update
set name = excluded.name, text = excluded.text, data = excluded.data, last = excluded.last, cleared = null,
    nonce = excluded.nonce, first = case when p.cleared is null then p.first else excluded.first end,
    attempt = case when $10 > 0 then $10 when p.cleared is null then p.attempt + 1 else 1 end,
    next = case when not $14 then excluded.next when p.cleared is null
        then excluded.last + (5000000::bigint << least(p.attempt - 1, 9)) else excluded.last end
where p.nonce <> excluded.nonce

-- All of the runs (`$2`, `$3`) is over, but steps at the paths of a JSON array each (`$4`) and what units with the nonces `$5` have
-- told. One statement for a whole batch: those that an executor recovers all say so.
-- name: problem_over
update perdure.problem set cleared = $6, next = null
where ctid = any(array(
    select p.ctid from unnest($2::text[], $3::integer[], $4::text[], $5::bytea[]) u (id, run, pending, nonce)
    cross join lateral (
        select ctid from perdure.problem
        where app = $1 and id = u.id and run = u.run and cleared is null and nonce <> u.nonce
            and not (kind = 'step_failed' and u.pending::jsonb ? path) offset 0) p))

-- The step at `$4` was given its outcome by a person, at `$5`.
-- name: problem_given
update perdure.problem set cleared = $5, next = null
where app = $1 and id = $2 and run = $3 and kind = 'step_failed' and path = $4 and cleared is null

-- Then the row tells of the latest of what is left.
-- name: problem_left
update perdure.workflow set problem = (
    select p.kind from perdure.problem p where p.app = $1 and p.id = $2 and p.run = $3 and p.cleared is null
    order by p.last desc, p.kind limit 1)
where app = $1 and id = $2 and run = $3

-- What the rows of the runs (`$2`, `$3`) tell from now on.
-- name: problem_mark
update perdure.workflow w set problem = x.problem
from (
    select c.ctid as at, u.problem from unnest($2::text[], $3::integer[], $4::text[]) u (id, run, problem)
    cross join lateral (
        select ctid from perdure.workflow where app = $1 and id = u.id and run = u.run offset 0) c) x
where w.ctid = x.at

-- The turn of a run held under `$4` takes too long.
-- name: problem_turn
with t as materialized (
    select coalesce($7::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
w as (
    update perdure.workflow set problem = 'turn_timeout'
    where app = $1 and id = $2 and run = $3 and claim = $4 and closed is null
    returning version)
insert into perdure.problem as p (app, id, run, kind, path, version, name, text, attempt, first, last, nonce)
select $1, $2, $3, 'turn_timeout', '', w.version, '', $5, 1, t.now, t.now, $6 from w, t
on conflict (app, id, run, kind, path, version) do update
set text = excluded.text, last = excluded.last, cleared = null, nonce = excluded.nonce,
    first = case when p.cleared is null then p.first else excluded.first end,
    attempt = case when p.cleared is null then p.attempt + 1 else 1 end
where p.nonce <> excluded.nonce
returning id

-- All problems of these workflows, by id, the oldest first.
-- name: problem_list
select p.*
from unnest($2::text[]) u (id)
cross join lateral (
    select id, run, kind, path, version, name, text, data, attempt, first, last, next, cleared
    from perdure.problem where app = $1 and id = u.id offset 0) p
order by p.id, p.run, p.first, p.kind, p.path, p.version

-- When the next of what is held under version `$2` since `$4` at the latest, for one of the reasons `$3`, may be tried again.
-- name: held_due
select min(x.next)
from (
    select id, run, reason from perdure.workflow
    where app = $1 and version = $2 and problem is not null and status < 5 and status = 4 and lane is null and until is null
        and reason = any($3::text[]) and updated <= $4) w
cross join lateral (
    select next from perdure.problem
    where app = $1 and id = w.id and run = w.run and kind = w.reason and path = '' and version = $2 offset 0) x

-- Up to `$4` workflows of other versions than `$2` that are held for one of the reasons `$3`, may move, and may be tried by this
-- version now.
-- name: held_elsewhere
with t as materialized (
    select coalesce($5::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now),
x as materialized (
    select w.id from perdure.workflow w
    where w.app = $1 and w.problem is not null and w.status < 5 and w.status = 4 and w.version <> $2
        and w.versioning <> 1 and w.reason = any($3::text[])
        and not exists (
            select from (select run, last_seq, version from perdure.trial where app = $1 and id = w.id offset 0) r
            where r.run = w.run and r.last_seq = w.last_seq and r.version = $2)
        and not exists (
            select from (
                select next, cleared from perdure.problem
                where app = $1 and id = w.id and run = w.run and kind = w.reason and path = '' and version = $2 offset 0) p
            where p.cleared is null and p.next > (select now from t))
    limit $4)
select @row
from x cross join lateral (select * from perdure.workflow where app = $1 and id = x.id offset 0) c
order by c.id
