-- The schemes of a version's processes, so that they can be drawn and read where the code is not.
-- Columns: docs/internals/schema.md.

alter table perdure.version add column schemes text not null default '{}';
