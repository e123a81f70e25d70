-- Chores that one process at a time does for all, and how far they got. See docs/internals/retention.md.
create table perdure.upkeep (
    app text collate "C" not null,
    name text collate "C" not null,
    owner bytea,
    until bigint not null,
    note text not null,
    primary key (app, name)
);
