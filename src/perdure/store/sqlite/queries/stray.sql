-- Unfinished work of versions that nobody runs any more. ?1 is the app.

-- The next version after ?2 of open workflows that nobody holds: a hop along the index of open rows.
-- name: stray_version
select version from workflow
where app = ?1 and owner is null and version > ?2 and status < 5 order by version limit 1

-- Of version ?2, up to ?4 workflows that nobody holds: all of them, or those that may move to version ?3 and have not
-- been tried there as they stand.
-- name: stray_list
select f.id from workflow f
where f.app = ?1 and f.owner is null and f.version = ?2 and f.status < 5
    and (?3 is null
        or f.versioning <> 1
        and (f.status < 4 or f.reason in ('nondeterminism', 'no_code', 'undecodable', 'crashed'))
        and not exists (
            select 1 from trial t where t.app = ?1 and t.id = f.id
                and t.run = f.run and t.last_seq = f.last_seq and t.version = ?3))
order by f.until limit ?4

-- Those that somebody has told to cancel and nobody holds, with their versions.
-- name: stray_commanded
select w.dest, min(w.cancel), f.version
from wake w cross join workflow f on f.app = w.app and f.id = w.dest
where w.app = ?1 and w.cancel is not null and f.owner is null and f.status < 5
group by w.dest order by w.dest

-- Moves a run to version ?7 if it stands as it was seen: run ?3 of version ?4, last held under ?5, with ?6 records.
-- Claimable at ?8; no late write of who held it passes any more.
-- name: stray_adopt
update workflow
set version = ?7, status = case status when 4 then 1 else status end, reason = null, claim = null,
    detail = case status when 4 then '' else detail end, updated = ?8,
    until = case when status in (3, 4) then ?8 else until end, lane = case when status = 4 then queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648) else lane end
where app = ?1 and id = ?2 and run = ?3 and version = ?4 and owner is null and status < 5
    and claim is ?5 and last_seq = ?6
returning id

-- Running workflows of owner ?2, of versions that are not in ?3 (a JSON array). Of none are those from before there were
-- versions.
-- name: stray_orphans
select id from workflow
where app = ?1 and owner = ?2 and status < 5 and version >= '' and version not in (select value from json_each(?3))
order by id limit ?4

-- Queues one whose owner died.
-- name: stray_release
update workflow
set status = 1, owner = null, claim = null, attempts = attempts + 1, cause = 1, problem = 'executor_died', detail = '', until = ?3,
    updated = ?3,
    last_seq = coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = workflow.run), 0)
where app = ?1 and id = ?2

-- Notes a trial; of each workflow the latest one stands.
-- name: trial_put
insert into trial (app, id, run, last_seq, version, reason, detail, at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
on conflict (app, id) do update
set run = excluded.run, last_seq = excluded.last_seq, version = excluded.version, reason = excluded.reason,
    detail = excluded.detail, at = excluded.at

-- The trial of a workflow.
-- name: trial_get
select id, run, last_seq, version, reason, detail, at from trial where app = ?1 and id = ?2

-- Forgets the trial of a workflow.
-- name: trial_forget
delete from trial where app = ?1 and id = ?2
