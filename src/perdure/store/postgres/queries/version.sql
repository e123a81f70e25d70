-- Versions of the code and where new work goes. `$1` is the app. Whoever changes both locks the routing row first.

-- Locks where new work goes; a row made here says that the version `$2` is the first one.
-- name: routing_lock
insert into perdure.routing as r (app, current, revision, changed, because) values ($1, $2, 1, $3, $4)
on conflict (app) do update set revision = r.revision
returning current, ramping, percentage, revision, changed, because, xmax::text = '0' as made

-- Where new work goes.
-- name: routing_get
select current, ramping, percentage, revision, changed, because from perdure.routing where app = $1

-- Changes where new work goes, if it is still as it was at the revision before.
-- name: routing_set
update perdure.routing
set current = $2, ramping = $3, percentage = $4, revision = $5, changed = $6, because = $7
where app = $1 and revision = $5 - 1 returning revision

-- Notes a launch; whether it is the first of its version, and whether an operator took traffic from it.
-- name: version_launched
insert into perdure.version as v (app, name, fingerprints, first_launched, launched) values ($1, $2, $3, $4, $4)
on conflict (app, name) do update set fingerprints = excluded.fingerprints, launched = excluded.launched
returning xmax::text = '0' as first, withdrawn

-- Notes which versions an operator took traffic from (`$2`), and which were given some (`$3`).
-- name: version_withdrawn
update perdure.version set withdrawn = not name = any($3::text[])
where app = $1 and name = any($2::text[] || $3::text[])

-- All versions, the latest launched first.
-- name: version_list
select name, fingerprints, first_launched, launched, withdrawn from perdure.version
where app = $1 order by launched desc, name

-- Whether an executor of version `$2` is alive at `$3`, those in `$4` apart.
-- name: version_served
select exists (
    select from perdure.incarnation
    where app = $1 and version = $2 and state = 'alive' and lease_until > $3 and id <> all($4::bytea[]))
