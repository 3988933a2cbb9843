-- Sessions that were deleted and still count: a row for each statement that deleted some, with their owners, one for each
-- session. To change the owners' counts in that statement costs as much as the deletion itself, and lets the deletions of one
-- owner wait for each other's flush; what is in these rows is taken off the counts soon after, many at once, and at once by
-- the statement that makes room for an owner who has none left. The sessions that an owner has are those of its count, less
-- its own here.
--
-- Without an index, as it holds the rows of a moment only.
create table sipher_sessions.session_removals (
  owner_ids text[] not null
);
