-- Which claims of an incarnation still count, where a queue limits what one executor has of it. Columns:
-- docs/internals/schema.md.

alter table perdure.incarnation add column series integer not null default 0;
