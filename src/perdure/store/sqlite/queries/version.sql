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
