-- What an operator's order about a workflow's version overrides: null for most. Columns: docs/internals/schema.md.

alter table perdure.workflow add column override smallint;
alter table perdure.past_run add column override smallint;
