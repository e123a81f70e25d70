-- Executors. Times are microseconds.

-- Registers an incarnation; a repeated write of the same one renews it.
-- name: incarnation_insert
insert into incarnation (id, app, executor, version, host, boot, space, pid, pid_started, state, started, lease_until,
    lease)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11 + ?12, ?12)
on conflict (id) do update set lease_until = excluded.lease_until

-- Renews a lease unless the incarnation was declared dead, and notes how late its event loop is.
-- name: incarnation_renew
update incarnation set lease_until = ?3, beats = beats + 1, lag = ?4
where id = ?1 and app = ?2 and state in ('alive', 'draining') returning id

-- From now on only claims of this series, or a later one, count.
-- name: incarnation_series
update incarnation set series = ?3 where id = ?2 and app = ?1 and series < ?3

-- The series of claims that counts.
-- name: incarnation_counts
select series from incarnation where id = ?1

-- All that are known of an app.
-- name: incarnation_list
select id, executor, version, host, boot, space, pid, pid_started, state, started, lease_until, lease, beats, lag,
    heir
from incarnation where app = ?1 order by started, id

-- Declares one dead, if its lease has run out at ?3 (null: in any case) and it has renewed ?4 times (null: ever so often).
-- name: incarnation_bury
update incarnation set state = 'dead'
where id = ?1 and app = ?2 and state in ('alive', 'draining') and (?3 is null or lease_until <= ?3)
    and (?4 is null or beats = ?4)
returning id

-- Marks one as draining.
-- name: incarnation_drain
update incarnation set state = 'draining' where id = ?1 and app = ?2 and state = 'alive'

-- Marks one that is over as given to the heir ?3.
-- name: incarnation_release
update incarnation set state = 'released', heir = ?3
where id = ?1 and app = ?2 and state in ('dead', 'gone', 'released') returning id

-- Whether the incarnation ?2 is there, and nobody has said that it is over.
-- name: incarnation_serves
select 1 from incarnation where id = ?2 and app = ?1 and state in ('alive', 'draining')

-- Those that were given to another than the executor of the incarnation ?2 (nobody's: to any that is named).
-- name: incarnation_given
select id from incarnation
where app = ?1 and state = 'released' and heir <> coalesce((select executor from incarnation where id = ?2), '')

-- Marks one as gone by its own will.
-- name: incarnation_leave
update incarnation set state = 'gone' where id = ?1 and app = ?2

-- Forgets those that are over and own nothing.
-- name: incarnation_forget
delete from incarnation
where app = ?1 and state in ('dead', 'gone', 'released')
    and not exists (select 1 from workflow f where f.app = ?1 and f.owner = incarnation.id and f.status < 5)

-- The apps of all that are known, read along the key, and of all schedules.
-- name: incarnation_apps
select distinct app from incarnation where id > x'' union select app from schedule where app > ''

-- The apps that were ever launched.
-- name: version_apps
select distinct app from version where app > ''
