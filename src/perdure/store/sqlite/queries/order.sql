-- Orders of an operator. ?1 is the app, ?2 the workflow id.

-- Says where it runs on: version ?3, behaviour ?4, what that overrides ?5; by the order ?6 at ?7, its record being ?8. If ?9
-- it is to be claimed anew: taken from its holder, due if it waits, queued if it is held for one of ?10 (a JSON array).
-- name: workflow_ordered
update workflow set version = ?3, versioning = ?4, override = ?5, claim = ?6, owner = null, updated = ?7, last_seq = ?8,
    status = case when ?9 and (status = 2 or reason in (select value from json_each(?10))) then 1 else status end,
    until = case when ?9 and (status in (2, 3) or reason in (select value from json_each(?10))) then ?7 else until end,
    attempts = case when ?9 and (status <> 4 or reason in (select value from json_each(?10))) then 0 else attempts end,
    cause = case when ?9 and (status <> 4 or reason in (select value from json_each(?10))) then 0 else cause end,
    lane = case when ?9 and reason in (select value from json_each(?10))
        then queue || char(31) || partition || char(31) || printf('%08x', priority + 2147483648) else lane end,
    detail = case when ?9 and (status = 2 or reason in (select value from json_each(?10))) then '' else detail end,
    reason = case when ?9 and reason in (select value from json_each(?10)) then null else reason end
where app = ?1 and id = ?2

-- The same of what somebody holds and goes on holding.
-- name: workflow_labelled
update workflow set versioning = ?3, override = ?4 where app = ?1 and id = ?2

-- Messages that a reset drops: those that the run ?3 has received after its record ?5, and those that came after ?6 and
-- nobody has received. They count as received by the run ?4 before its first record.
-- name: message_exclude
update message set taken_run = ?4, taken_seq = 0
where app = ?1 and dest = ?2 and ((taken_run = ?3 and taken_seq > ?5) or (taken_seq is null and at > ?6))
