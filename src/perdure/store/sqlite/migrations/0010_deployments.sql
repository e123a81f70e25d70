-- What became of a version as routing changed, what people noted of it, and who changed a deployment, when and why.
-- Columns: docs/internals/schema.md.

alter table version add column since integer not null default 0;
alter table version add column routed integer not null default 0;
alter table version add column metadata text not null default '{}';
alter table version add column deleted integer;
-- Which of those that are there had traffic nobody has noted. Under rollout="auto" all had.
update version set since = launched, routed = 1;

alter table routing add column watch text;

create table deployment_change (
    app text not null,
    revision integer not null,
    at integer not null,
    kind text not null,
    version text not null,
    by text not null,
    reason text not null,
    current text not null,
    ramping text,
    percentage real not null,
    nonce blob,
    primary key (app, revision)
) strict, without rowid;
