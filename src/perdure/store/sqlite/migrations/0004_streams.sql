-- Streams: append-only, each value once. Columns: docs/internals/schema.md.

create table stream (
    app text not null,
    id text not null,
    run integer not null,
    name text not null,
    chain integer not null,
    next integer not null check (next >= 0),
    closed integer not null default 0,
    nonce blob not null,
    at integer not null,
    kept integer,
    primary key (app, id, run, name)
) strict, without rowid;

create table stream_value (
    app text not null,
    id text not null,
    chain integer not null,
    name text not null,
    place integer not null check (place >= 0),
    run integer not null,
    path text not null,
    n integer not null,
    data blob not null,
    at integer not null,
    primary key (app, id, chain, name, place)
) strict, without rowid;

create unique index stream_value_once on stream_value (app, id, chain, name, run, path, n);
