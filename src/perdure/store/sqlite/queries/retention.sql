-- Retention: what has ended long ago, page by page, and chores that one process at a time does. ?1 is the app.

-- Workflows up to creation ?4 in the order of (created, id), after (?2, ?3). The last column: whether it is open, or
-- the child of an open parent whose run may ask for it, or watched by an open workflow.
-- name: purge_ended
select w.id, w.run, w.name, w.status, w.created, w.closed, w.last_seq,
    case when w.status < 5 then 1
        when w.parent is not null and exists (
            select 1 from workflow p where p.app = ?1 and p.id = w.parent and p.status < 5
                and (p.run = w.parent_run or p.lineage = (
                    select q.lineage from past_run q
                    where q.app = ?1 and q.id = w.parent and q.run = w.parent_run))) then 1
        else exists (
            select 1 from watch k cross join workflow q on q.app = ?1 and q.id = k.waiter
            where k.app = ?1 and k.target = w.id and q.status < 5) end
from workflow w
where w.app = ?1 and w.created >= ?2 and w.created <= ?4 and (w.created > ?2 or w.id > ?3)
order by w.created, w.id limit ?5

-- Earlier runs in the order of (id, run), after (?2, ?3). The last columns: whether the
-- latest run is of its lineage, whether anything was decided about it.
-- name: purge_past
select p.id, p.run, p.name, p.status, p.created, p.closed, p.last_seq,
    coalesce(p.lineage = (select w.lineage from workflow w where w.app = ?1 and w.id = p.id), 0),
    exists (select 1 from decision d where d.app = ?1 and d.id = p.id and d.run = p.run)
from past_run p
where p.app = ?1 and (p.id, p.run) > (?2, ?3)
order by p.id, p.run limit ?4

-- Whether the workflow ?2 may go now: its latest run is ?3, closed, and nobody needs it.
-- name: purge_may
select 1 from workflow w
where w.app = ?1 and w.id = ?2 and w.run = ?3 and w.status >= 5
    and not (w.parent is not null and exists (
        select 1 from workflow p where p.app = ?1 and p.id = w.parent and p.status < 5
            and (p.run = w.parent_run or p.lineage = (
                select q.lineage from past_run q
                where q.app = ?1 and q.id = w.parent and q.run = w.parent_run))))
    and not exists (
        select 1 from watch k cross join workflow q on q.app = ?1 and q.id = k.waiter
        where k.app = ?1 and k.target = w.id and q.status < 5)

-- Whether the earlier run ?3 may go now: the latest one is of another lineage.
-- name: purge_may_past
select 1 from past_run p
where p.app = ?1 and p.id = ?2 and p.run = ?3
    and not coalesce(p.lineage = (select w.lineage from workflow w where w.app = ?1 and w.id = p.id), 0)

-- Forgets questions that nobody waits for since ?2.
-- name: purge_requests
delete from request where app = ?1 and nonce in (
    select nonce from request where app = ?1 and until <= ?2 limit 500) returning 1

-- Takes a chore that is due at ?4, for the owner ?3, until ?5.
-- name: chore_take
insert into upkeep as u (app, name, owner, until, note) values (?1, ?2, ?3, ?5, '')
on conflict (app, name) do update set owner = ?3, until = ?5 where u.until <= ?4 or u.owner = ?3
returning note

-- When a chore is due.
-- name: chore_due
select until from upkeep where app = ?1 and name = ?2

-- Notes how far the owner ?3 got; ?6: nobody's from now on.
-- name: chore_note
update upkeep set note = ?4, until = ?5, owner = case when ?6 then null else owner end
where app = ?1 and name = ?2 and owner = ?3 returning 1

-- A note that is no chore's.
-- name: mark_put
insert into upkeep (app, name, until, note) values (?1, ?2, 0, ?3)
on conflict (app, name) do update set note = excluded.note

-- Forgets one.
-- name: mark_forget
delete from upkeep where app = ?1 and name = ?2

-- All notes.
-- name: mark_list
select name, note from upkeep where app = ?1

-- How many workflows there are of each name and status, and the oldest.
-- name: size_kinds
select name, status, count(*), min(created) from workflow where app = ?1 group by name, status order by name, status

-- How many earlier runs there are.
-- name: size_past
select count(*) from past_run where app = ?1

-- Where the history of a run ends.
-- name: history_end
select coalesce(max(seq), 0) from history where app = ?1 and id = ?2 and run = ?3
