-- Earlier runs of an id. ?1 is the app, ?2 the id, ?3 the run.

-- Copies the ending run out of the hot row, as ?4, at ?5; closed at ?6.
-- name: past_run_insert
insert into past_run (app, id, run, lineage, name, version, status, reason, detail, claim, owner, epoch, attempts,
    last_seq, until, timeout, deadline, created, updated, started, closed, cancel, parent, parent_run, parent_path,
    on_parent_close, queue, priority, fingerprint, attributes, intents, nonce,
    versioning, partition, override)
select app, id, run, lineage, name, version, ?4, null, detail, claim, null, epoch, attempts,
    coalesce((select max(h.seq) from history h where h.app = ?1 and h.id = ?2 and h.run = ?3), 0), null, timeout, deadline,
    created, ?5, started, ?6, cancel, parent, parent_run, parent_path, on_parent_close, queue, priority, fingerprint,
    attributes, intents, nonce, versioning, partition, override
from workflow where app = ?1 and id = ?2 and run = ?3

-- An earlier run, as it is shown.
-- name: past_run_get
select id, run, lineage, name, status, version, created, updated, reason, detail, claim, owner, epoch, attempts,
    last_seq, until, deadline, timeout, started, closed, cancel, parent, parent_run, parent_path, on_parent_close,
    queue, priority, fingerprint, attributes, intents, cause, versioning, partition, lane, expires, pause, problem,
    override
from past_run where app = ?1 and id = ?2 and run = ?3

-- Who inserted an earlier run: tells a repeated start from another's.
-- name: past_run_nonce
select nonce from past_run where app = ?1 and id = ?2 and run = ?3
