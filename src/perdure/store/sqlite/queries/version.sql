-- Versions of the code and where new work goes. ?1 is the app.

-- Where new work goes.
-- name: routing_get
select current, ramping, percentage, revision, changed, because, watch from routing where app = ?1

-- Says where new work goes; what was seen of it before was seen in the same transaction.
-- name: routing_put
insert into routing (app, current, ramping, percentage, revision, changed, because, watch)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
on conflict (app) do update set current = excluded.current, ramping = excluded.ramping,
    percentage = excluded.percentage, revision = excluded.revision, changed = excluded.changed,
    because = excluded.because, watch = excluded.watch

-- Notes a launch. One that was deleted is there again.
-- name: version_launched
insert into version (app, name, fingerprints, first_launched, launched, since) values (?1, ?2, ?3, ?4, ?4, ?4)
on conflict (app, name) do update set fingerprints = excluded.fingerprints, launched = excluded.launched,
    first_launched = case when first_launched = 0 then excluded.first_launched else first_launched end,
    since = case when deleted is null then since else excluded.since end, deleted = null

-- Notes that a version gets new work (?4) or loses it, by an operator (?5) or a launch.
-- name: version_mark
insert into version (app, name, fingerprints, first_launched, launched, since, routed, withdrawn)
values (?1, ?2, '{}', 0, 0, ?3, 1, ?5 and not ?4)
on conflict (app, name) do update set since = excluded.since, routed = 1,
    withdrawn = case when ?5 then excluded.withdrawn else withdrawn end

-- All versions, the latest launched first.
-- name: version_list
select name, fingerprints, first_launched, launched, withdrawn, since, routed, metadata, deleted
from version where app = ?1 order by launched desc, name

-- One version.
-- name: version_get
select name, fingerprints, first_launched, launched, withdrawn, since, routed, metadata, deleted
from version where app = ?1 and name = ?2

-- What people noted of a version.
-- name: version_metadata
update version set metadata = ?3 where app = ?1 and name = ?2

-- Deletes a version: what is left of it is that it was there, and what an operator said of it.
-- name: version_delete
update version set metadata = '{}', deleted = ?3 where app = ?1 and name = ?2

-- The executors of a version that are alive at ?3.
-- name: version_served
select id from incarnation where app = ?1 and version = ?2 and state = 'alive' and lease_until > ?3

-- The next version after ?2 by name that has open work which nobody holds; null if none.
-- name: version_next_free
select min(version) from workflow indexed by workflow_open
where app = ?1 and owner is null and version > ?2 and status < 5

-- The same of work that ?3 holds.
-- name: version_next_held
select min(version) from workflow indexed by workflow_open
where app = ?1 and owner = ?3 and version > ?2 and status < 5

-- Counts open work of a version that nobody holds, up to ?3.
-- name: unfinished_free
select count(*), min(created) from (
    select created from workflow indexed by workflow_open
    where app = ?1 and owner is null and version = ?2 and status < 5 limit ?3)

-- The same of work that ?4 holds.
-- name: unfinished_held
select count(*), min(created) from (
    select created from workflow indexed by workflow_open
    where app = ?1 and owner = ?4 and version = ?2 and status < 5 limit ?3)

-- Workflows of a version that go with the current one (of the names in ?3, a JSON array) and that nobody holds; if there
-- is a ramp, those whose ids lie below ?5, or (not ?6) above.
-- name: upgradable
select id from workflow indexed by workflow_open
where app = ?1 and owner is null and version = ?2 and status < 5 and versioning = 2 and reason is not 'paused'
    and name in (select value from json_each(?3)) and (?5 is null or (ramp_point(?1 || id) < ?5) = ?6)
order by until limit ?4

-- The same of those that ?7 holds.
-- name: upgradable_held
select id from workflow indexed by workflow_open
where app = ?1 and owner = ?7 and version = ?2 and status < 5 and versioning = 2
    and name in (select value from json_each(?3)) and (?5 is null or (ramp_point(?1 || id) < ?5) = ?6)
order by until limit ?4

-- Gives a workflow another version; whoever held it writes nothing any more. What is held because the code did not match (?4) is queued with it.
-- name: upgrade
update workflow set version = ?3, updated = ?5,
    status = case when reason in (select value from json_each(?4)) then 1 else status end,
    until = case when reason in (select value from json_each(?4)) then ?5 else until end,
    claim = case when status = 2 or reason in (select value from json_each(?4)) then null else claim end,
    detail = case when reason in (select value from json_each(?4)) then '' else detail end,
    lane = case when reason in (select value from json_each(?4)) then queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648) else lane end,
    reason = case when reason in (select value from json_each(?4)) then null else reason end
where app = ?1 and id = ?2

-- Notes what the code declares of a workflow held under ?3 that was started without it: ?4, and its timeout ?5.
-- name: declare
update workflow set
    versioning = case versioning when 0 then ?4 else versioning end,
    timeout = coalesce(timeout, ?5),
    deadline = case when timeout is null and ?5 is not null
        then min(coalesce(deadline, max(started, created) + ?5), max(started, created) + ?5) else deadline end
where app = ?1 and id = ?2 and claim = ?3
    and (versioning = 0 and ?4 <> 0 or timeout is null and ?5 is not null and started is not null)
returning id

-- Notes the schemes of a version's processes.
-- name: version_note_schemes
update version set schemes = ?3 where app = ?1 and name = ?2 and schemes <> ?3

-- The schemes of all versions that have some, the latest launched first.
-- name: version_schemes
select name, schemes from version where app = ?1 and schemes <> '{}' order by launched desc, name
