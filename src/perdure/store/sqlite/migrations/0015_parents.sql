-- What a workflow has begun: listed, and deleted with it. Rows without a parent, which are most, are not in it.
create index workflow_parent on workflow (app, parent) where parent is not null;
