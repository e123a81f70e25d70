-- What an operator's order about a workflow's version overrides: null for most. Columns: docs/internals/schema.md.

alter table workflow add column override integer;
alter table past_run add column override integer;
