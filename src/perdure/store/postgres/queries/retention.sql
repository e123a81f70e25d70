-- Retention: what has ended long ago, page by page, and chores that one process at a time does.

-- Workflows up to creation `$4` in the order of (created, id), after (`$2`, `$3`). The last column: whether it is open,
-- or the child of an open parent whose run may ask for it, or watched by an open workflow.
-- name: purge_ended
select w.id, w.run, w.name, w.status, w.created, w.closed, w.last_seq,
    case when w.status < 5 then true
        when w.parent is not null and exists (
            select from (
                select status, run, lineage from perdure.workflow where app = $1 and id = w.parent offset 0) p
            where p.status < 5
                and (p.run = w.parent_run or p.lineage = (
                    select q.lineage from perdure.past_run q
                    where q.app = $1 and q.id = w.parent and q.run = w.parent_run))) then true
        else exists (
            select from perdure.watch k cross join lateral (
                select status from perdure.workflow where app = $1 and id = k.waiter offset 0) q
            where k.app = $1 and k.target = w.id and q.status < 5 offset 0) end
from perdure.workflow w
where w.app = $1 and w.created >= 0 and w.created >= $2 and w.created <= $4 and (w.created > $2 or w.id > $3)
order by w.app, w.created, w.id limit $5

-- Earlier runs in the order of (id, run), after (`$2`, `$3`). The last columns: whether the
-- latest is of its lineage, whether anything was decided about it.
-- name: purge_past
select p.id, p.run, p.name, p.status, p.created, p.closed, p.last_seq,
    coalesce(p.lineage = (select w.lineage from perdure.workflow w where w.app = $1 and w.id = p.id), false),
    coalesce((select true from perdure.decision d where d.app = $1 and d.id = p.id and d.run = p.run limit 1), false)
from perdure.past_run p
where p.app = $1 and (p.id, p.run) > ($2, $3)
order by p.app, p.id, p.run limit $4

-- Locks those of the workflows `$2` that may go now: the latest run is `$3`, closed, and nobody needs it. What others
-- have locked is left to them.
-- name: purge_lock
select w.id
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (
    select x.id from perdure.workflow x
    where x.app = $1 and x.id = u.id and x.run = u.run and x.status >= 5
        and not (x.parent is not null and exists (
            select from (
                select status, run, lineage from perdure.workflow where app = $1 and id = x.parent offset 0) p
            where p.status < 5
                and (p.run = x.parent_run or p.lineage = (
                    select q.lineage from perdure.past_run q
                    where q.app = $1 and q.id = x.parent and q.run = x.parent_run))))
        and not exists (
            select from perdure.watch k cross join lateral (
                select status from perdure.workflow where app = $1 and id = k.waiter offset 0) q
            where k.app = $1 and k.target = x.id and q.status < 5 offset 0)
    for update skip locked) w

-- Locks those of the earlier runs `$3` of `$2` that may go now: the latest run is of another lineage.
-- name: purge_lock_past
select p.id, p.run
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (
    select x.id, x.run from perdure.past_run x
    where x.app = $1 and x.id = u.id and x.run = u.run
        and x.lineage is distinct from (
            select w.lineage from perdure.workflow w where w.app = $1 and w.id = x.id)
    for update skip locked) p

-- Forgets questions that nobody waits for since `$2`.
-- name: purge_requests
delete from perdure.request r where r.ctid = any(array(
    select ctid from perdure.request where app = $1 and until <= $2 limit 500)) returning 1

-- Takes a chore `$2` that is due, for the owner `$3` and so many microseconds.
-- name: chore_take
with t as materialized (
    select coalesce($5::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now)
insert into perdure.upkeep as u (app, name, owner, until, note) select $1, $2, $3, t.now + $4::bigint, '' from t
on conflict (app, name) do update set owner = excluded.owner, until = excluded.until
    where u.until <= (select now from t) or u.owner = excluded.owner
returning u.until - $4::bigint, u.note

-- When a chore is due.
-- name: chore_due
select until from perdure.upkeep where app = $1 and name = $2

-- Notes how far the owner `$3` got; `$6`: nobody's from now on.
-- name: chore_note
update perdure.upkeep set note = $4, owner = case when $6::boolean then null else owner end,
    until = coalesce($7::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) + $5::bigint
where app = $1 and name = $2 and owner = $3 returning 1

-- A note that is no chore's.
-- name: mark_put
insert into perdure.upkeep (app, name, until, note) values ($1, $2, 0, $3)
on conflict (app, name) do update set note = excluded.note

-- Forgets one.
-- name: mark_forget
delete from perdure.upkeep where app = $1 and name = $2

-- All notes.
-- name: mark_list
select name, note from perdure.upkeep where app = $1

-- How many workflows there are of each name and status, and the oldest.
-- name: size_kinds
select name, status, count(*), min(created) from perdure.workflow where app = $1 group by name, status
order by name, status

-- How many earlier runs there are.
-- name: size_past
select count(*) from perdure.past_run where app = $1

-- What the server knows of our tables, without counting.
-- name: size_tables
select c.relname, greatest(c.reltuples, coalesce(s.n_live_tup, 0))::bigint, pg_total_relation_size(c.oid),
    coalesce(s.n_dead_tup, 0)
from pg_class c
left join pg_stat_all_tables s on s.relid = c.oid
where c.relnamespace = $1::text::regnamespace and c.relkind = 'r'

-- Where the histories of these runs end.
-- name: history_last
select u.id, u.run, h.seq
from unnest($2::text[], $3::int[]) u (id, run)
cross join lateral (
    select seq from perdure.history where app = $1 and id = u.id and run = u.run order by seq desc limit 1) h

-- Marks the rows for whose end somebody waits.
-- name: watch_remark
insert into perdure.workflow as w (app, id, run, lineage, name, version, status, created, updated, fingerprint, nonce)
select $1, k.target, 1, '', '', '', 1, 0, 0, '', ''
from (select distinct target from perdure.watch where app = $1) k
cross join lateral (select id from perdure.workflow where app = $1 and id = k.target offset 0) x
on conflict (app, id) do update set watched = true
