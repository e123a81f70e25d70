-- The deduplication keys of a workflow: forgotten with it. Starts without a key are not in it.
create index dedup_id on perdure.dedup (app, id) where id <> '';
