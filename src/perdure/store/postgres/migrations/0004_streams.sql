-- Streams: append-only, each value once. Columns: docs/internals/schema.md.

create table perdure.stream (
    app text collate "C" not null,
    id text collate "C" not null,
    run integer not null,
    name text collate "C" not null,
    chain integer not null,
    next bigint not null check (next >= 0),
    closed boolean not null default false,
    nonce bytea not null,
    at bigint not null,
    kept bigint,
    primary key (app, id, run, name)
) with (fillfactor = 70);

create table perdure.stream_value (
    app text collate "C" not null,
    id text collate "C" not null,
    chain integer not null,
    name text collate "C" not null,
    place bigint not null check (place >= 0),
    run integer not null,
    path text collate "C" not null,
    n integer not null,
    data text not null,
    at bigint not null,
    primary key (app, id, chain, name, place)
);

create unique index stream_value_once on perdure.stream_value (app, id, chain, name, run, path, n);
