-- What became of a version as routing changed, what people noted of it, and who changed a deployment, when and why.
-- Columns: docs/internals/schema.md.

alter table perdure.version
    add column since bigint not null default 0,
    add column routed boolean not null default false,
    add column metadata text not null default '{}',
    add column deleted bigint;
-- Which of those that are there had traffic nobody has noted. Under rollout="auto" all had.
update perdure.version set since = launched, routed = true;

alter table perdure.routing add column watch text;

create table perdure.deployment_change (
    app text collate "C" not null,
    revision bigint not null,
    at bigint not null,
    kind text not null,
    version text not null,
    by text not null,
    reason text not null,
    current text not null,
    ramping text,
    percentage double precision not null,
    nonce bytea,
    primary key (app, revision)
);
