-- For questions about many workflows: what is of a version, in a status, of a name, pinned or not. Nothing on the way of
-- a workflow says `parent_run >= 0`, which is always true, so no plan of those takes this index: docs/internals/queries.md.
create index workflow_kind on perdure.workflow (app, version, status, name, versioning) where parent_run >= 0;
