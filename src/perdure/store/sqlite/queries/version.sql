-- Versions of the code and where new work goes. ?1 is the app.

-- Where new work goes.
-- name: routing_get
select current, ramping, percentage, revision, changed, because from routing where app = ?1

-- Says where new work goes; what was seen of it before was seen in the same transaction.
-- name: routing_put
insert into routing (app, current, ramping, percentage, revision, changed, because)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
on conflict (app) do update set current = excluded.current, ramping = excluded.ramping,
    percentage = excluded.percentage, revision = excluded.revision, changed = excluded.changed,
    because = excluded.because

-- Notes a launch; when its version was first launched, and whether an operator took traffic from it.
-- name: version_launched
insert into version (app, name, fingerprints, first_launched, launched) values (?1, ?2, ?3, ?4, ?4)
on conflict (app, name) do update set fingerprints = excluded.fingerprints, launched = excluded.launched
returning withdrawn

-- Whether a version was ever launched.
-- name: version_known
select 1 from version where app = ?1 and name = ?2

-- Notes whether an operator took traffic from a version.
-- name: version_withdrawn
update version set withdrawn = ?3 where app = ?1 and name = ?2

-- All versions, the latest launched first.
-- name: version_list
select name, fingerprints, first_launched, launched, withdrawn from version where app = ?1 order by launched desc, name

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

-- Workflows of a version that go with the current one (of the names in ?3, a JSON array) and that nobody holds.
-- name: upgradable
select id from workflow indexed by workflow_open
where app = ?1 and owner is null and version = ?2 and status < 5 and versioning = 2 and reason is not 'paused'
    and name in (select value from json_each(?3))
order by until limit ?4

-- The same of those that ?5 holds.
-- name: upgradable_held
select id from workflow indexed by workflow_open
where app = ?1 and owner = ?5 and version = ?2 and status < 5 and versioning = 2
    and name in (select value from json_each(?3))
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

-- Notes what the code declares (?4) for a workflow held under ?3 that was started without it.
-- name: versioning_declared
update workflow set versioning = ?4 where app = ?1 and id = ?2 and claim = ?3 and versioning = 0 returning id
