-- Who told a workflow to pause, and why, until it has: null for most. Columns: docs/internals/schema.md.

alter table workflow add column pause text;
alter table past_run add column pause text;
