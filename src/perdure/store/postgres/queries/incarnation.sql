-- Executors. `$1` is the app; `now` is `coalesce($n, the database's)`.

-- Registers an incarnation; a repeated write of the same one renews it.
-- name: incarnation_insert
insert into perdure.incarnation (id, app, executor, version, host, boot, space, pid, pid_started, state, started,
    lease_until, lease)
select $2, $1, $3, $4, $5, $6, $7, $8, $9, $10, t.now, t.now + $11::bigint, $11
from (select coalesce($12::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now) t
on conflict (id) do update set lease_until = excluded.lease_until

-- Renews a lease unless the incarnation was declared dead, and notes how late its event loop is.
-- name: incarnation_renew
update perdure.incarnation i set lease_until = t.now + $3::bigint, beats = beats + 1, lag = $5
from (select coalesce($4::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now) t
where i.id = $2 and i.app = $1 and i.state in ('alive', 'draining') returning t.now

-- From now on only claims of this series, or a later one, count: who has claimed by an earlier one is waited for.
-- name: incarnation_series
with i as materialized (select id from perdure.incarnation where id = $2 and app = $1 for update)
update perdure.incarnation set series = $3 where id = (select id from i) and series < $3

-- All that are known of an app.
-- name: incarnation_list
select id, executor, version, host, boot, space, pid, pid_started, state, started, lease_until, lease, beats, lag,
    heir
from perdure.incarnation where app = $1 order by started, id

-- All that are known of an app, and beside the first: the time; who owns anything, and the versions of open workflows
-- that nobody holds, both found by hopping along the index of open rows; when this connection was made, and what the
-- connections of leases are called (see lifeline.py; everybody may see names).
-- name: roll_call
with recursive @owners,
v (version) as (
    (select version from perdure.workflow
    where app = $1 and owner is null and version > '' and status < 5 order by owner, version, lane, until limit 1)
    union all
    select (select w.version from perdure.workflow w
        where w.app = $1 and w.owner is null and w.version > v.version and w.status < 5
        order by w.owner, w.version, w.lane, w.until limit 1)
    from v where v.version is not null),
s as materialized (
    select pid, backend_start, application_name from pg_stat_activity
    where pid = pg_backend_pid() or application_name like 'perdure lease %'),
roll as (
    select coalesce($2::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint) as now,
        array(select owner from o where owner is not null) as owners,
        array(select version from v where version is not null) as strays,
        (select (extract(epoch from backend_start) * 1000000)::bigint from s where pid = pg_backend_pid()) as session,
        array(select application_name from s where application_name like 'perdure lease %') as leases, 1::bigint as n)
select i.id, i.executor, i.version, i.host, i.boot, i.space, i.pid, i.pid_started, i.state, i.started, i.lease_until,
    i.lease, i.beats, i.lag, i.heir, roll.now, roll.owners, roll.strays, roll.session, roll.leases
from roll full join (
    select *, row_number() over (order by started, id) as n from perdure.incarnation where app = $1) i on i.n = roll.n
order by coalesce(i.n, 0)

-- Declares incarnations dead, if `$3` only those whose lease has run out, if `$5` those that have renewed so often (`$6`).
-- Nobody could renew while the server was down: by its own clock a lease is good for its length after the start.
-- name: incarnation_bury
update perdure.incarnation i set state = 'dead'
where id = any($2::bytea[]) and app = $1 and state in ('alive', 'draining')
    and (not $3::boolean
        or lease_until <= coalesce($4::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint)
            and ($4::bigint is not null
                or (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint + lease
                    <= coalesce($4::bigint, (extract(epoch from statement_timestamp()) * 1000000)::bigint)))
    and ($5::bytea[] is null
        or exists (select from unnest($5::bytea[], $6::bigint[]) b (id, beats) where b.id = i.id and b.beats = i.beats))
returning id

-- Marks one as draining.
-- name: incarnation_drain
update perdure.incarnation set state = 'draining' where id = $2 and app = $1 and state = 'alive'

-- Marks those that are over as given to the heir `$3`.
-- name: incarnation_release
update perdure.incarnation set state = 'released', heir = $3
where id = any($2::bytea[]) and app = $1 and state in ('dead', 'gone', 'released') returning id

-- Marks one as gone by its own will.
-- name: incarnation_leave
update perdure.incarnation set state = 'gone' where id = $2 and app = $1

-- Forgets those that are over and own nothing.
-- name: incarnation_forget
delete from perdure.incarnation where id = any(array(
    select i.id from perdure.incarnation i
    left join lateral (
        select id from perdure.workflow where app = $1 and owner = i.id and status < 5 order by version, lane, until limit 1) w on true
    where i.app = $1 and i.state in ('dead', 'gone', 'released') and w.id is null))

-- The apps of all that are known, and of all schedules.
-- name: incarnation_apps
select app from perdure.incarnation union select app from perdure.schedule

-- The apps that were ever launched.
-- name: version_apps
select distinct app from perdure.version
