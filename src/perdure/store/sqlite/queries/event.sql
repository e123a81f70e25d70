-- Events of a run. ?1 is the app, ?2 the id.

-- Publishes or updates an event, and tells whose changed; `at` is when, so a repeated write leaves it.
-- name: event_put
insert into event (app, id, run, name, data, at) values (?1, ?2, ?3, ?4, ?5, ?6)
on conflict (app, id, run, name) do update set data = excluded.data, at = excluded.at
    where event.data <> excluded.data
returning id

-- The value of an event that the latest run has set.
-- name: event_get
select e.id, e.name, e.data
from workflow f join event e on e.app = f.app and e.id = f.id and e.run = f.run
where f.app = ?1 and f.id = ?2 and e.name = ?3

-- Sets the events of a run as its records have set them (?5 is their kind), as of ?4.
-- name: event_copy
insert into event (app, id, run, name, data, at)
select ?1, ?2, ?3, name, data, ?4 from (
    select name, data, max(seq) from history
    where app = ?1 and id = ?2 and run = ?3 and kind = ?5 and data is not null group by name)
