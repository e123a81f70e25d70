-- Chores that one process at a time does for all, and how far they got. See docs/internals/retention.md.
create table upkeep (
    app text not null,
    name text not null,
    owner blob,
    until integer not null,
    note text not null,
    primary key (app, name)
) strict, without rowid;
