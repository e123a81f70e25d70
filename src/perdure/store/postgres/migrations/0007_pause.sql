-- Who told a workflow to pause, and why, until it has: null for most. Columns: docs/internals/schema.md.

alter table perdure.workflow add column pause text;
alter table perdure.past_run add column pause text;
