-- Mail. ?1 is the app, ?2 the destination.

-- Inserts a message once; a row comes back if it was not there, neither by its id nor by its key.
-- name: message_insert
insert into message (app, dest, mid, topic, data, sender, at, key) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
on conflict do nothing returning mid

-- Whether a message (or one of the same key) was delivered before.
-- name: message_known
select 1 from message where app = ?1 and dest = ?2 and (mid = ?3 or key = ?4) limit 1

-- Marks a message as received by a record of a run; the mark of a first try stays.
-- name: message_take
update message set taken_run = ?4, taken_seq = ?5
where app = ?1 and dest = ?2 and mid = ?3 and taken_seq is null

-- Untaken mail of a workflow, first in first out.
-- name: message_inbox
select dest, mid, topic, data, at, sender from message
where app = ?1 and dest = ?2 and taken_seq is null order by mid

-- What the run ?3 has received up to its record ?5 counts as received by the run ?4; the rest by nobody.
-- name: message_untake
update message set taken_run = case when taken_seq <= ?5 then ?4 end,
    taken_seq = case when taken_seq <= ?5 then taken_seq end
where app = ?1 and dest = ?2 and taken_run = ?3
