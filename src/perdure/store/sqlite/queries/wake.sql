-- Durable wake-ups and the watches that cause them. ?1 is the app.

-- Inserts a wake, once per nonce; a cancel reason makes it a command, even if its target is woken as a watcher too.
-- name: wake_insert
insert into wake (app, dest, nonce, cancel) values (?1, ?2, ?3, ?4)
on conflict do update set cancel = coalesce(cancel, excluded.cancel)

-- Tells the open children of a workflow to cancel, but for those that are to be abandoned or waited for.
-- name: wake_children
insert into wake (app, dest, nonce, cancel)
select app, id, ?3, '' from workflow indexed by workflow_parent
where app = ?1 and parent = ?2 and on_parent_close = 'cancel' and status < 5
on conflict do update set cancel = coalesce(cancel, excluded.cancel)

-- Deletes a wake that its target has acted on; the reason comes back if it was a command.
-- name: wake_done
delete from wake where app = ?1 and dest = ?2 and nonce = ?3 returning dest, cancel

-- Deletes all wakes of a workflow that was just claimed or closed.
-- name: wake_clear
delete from wake where app = ?1 and dest = ?2

-- How many of the ?3 wakes for ids after ?2 there are, and the last of these ids.
-- name: wake_window
select count(*), coalesce(max(dest), '')
from (select dest from wake where app = ?1 and dest > ?2 order by dest, nonce limit ?3)

-- Among these (?3, ?4) wakes for what an owner holds.
-- name: wake_held
select w.dest, w.nonce, w.cancel, f.pause
from (select * from wake where app = ?1 and dest > ?3 order by dest, nonce limit ?4) w
cross join workflow f on f.app = ?1 and f.id = w.dest
where f.owner = ?2 and f.status = 2
order by w.dest, w.nonce

-- Wakes whoever watches a workflow.
-- name: wake_watchers
insert into wake (app, dest, nonce) select app, waiter, ?3 from watch where app = ?1 and target = ?2
on conflict do nothing

-- Remembers that a parked workflow waits for another.
-- name: watch_insert
insert into watch (app, target, waiter) values (?1, ?2, ?3) on conflict do nothing

-- Forgets what a workflow waited for.
-- name: watch_clear
delete from watch where app = ?1 and waiter = ?2

-- Wakes a workflow that has mail of the topic ?4 which nobody has taken.
-- name: wake_of_mail
insert into wake (app, dest, nonce)
select ?1, ?2, ?3 where exists (select 1 from message where app = ?1 and dest = ?2 and taken_seq is null and topic = ?4)
on conflict do nothing
