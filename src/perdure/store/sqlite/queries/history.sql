-- Records. ?1 is the app, ?2 the id, ?3 the run, ?4 the seq.

-- Appends a record; that it comes next was seen in the same transaction.
-- name: history_insert
insert into history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents,
    version, nonce)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)

-- Who wrote a record, and the one before it.
-- name: history_around
select id, seq, nonce from history where app = ?1 and id = ?2 and run = ?3 and seq between ?4 - 1 and ?4

-- The same of many: ?2 is a JSON array of [id, run, seq].
-- name: history_arounds
select h.id, h.seq, h.nonce
from json_each(?2) j cross join history h on h.app = ?1 and h.id = j.value ->> 0 and h.run = j.value ->> 1
    and h.seq between (j.value ->> 2) - 1 and j.value ->> 2

-- The history of a run in the order observed.
-- name: history_of
select seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version
from history where app = ?1 and id = ?2 and run = ?3 order by seq

-- Copies the first ?4 records of a run to the run ?6 of ?5, as they stand.
-- name: history_copy
insert into history (app, id, run, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents,
    version, nonce)
select app, ?5, ?6, seq, path, kind, name, at, fingerprint, outcome, data, attempt, shown, intents, version, nonce
from history where app = ?1 and id = ?2 and run = ?3 and seq <= ?4 order by seq

-- Whether a record after ?4 was written with the nonce ?5.
-- name: history_has
select 1 from history where app = ?1 and id = ?2 and run = ?3 and seq > ?4 and nonce = ?5 limit 1
