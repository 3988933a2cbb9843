-- The audit log, with a row for each statement that changed keys or sessions, and in its arrays an element for each that it
-- changed: a row for each of them, with its entries in two indexes, was up to a third of what the change itself took.
--
-- The entries of a row have the ids from the row's own on, so that there is one order of all. They go on far above those of
-- sipher_sessions.audit, which has what was logged until now, and what instances of the release before log while they are
-- replaced.
create table sipher_sessions.changes (
  id bigint generated always as identity (start with 1000000000000 increment by 1000) primary key check (id % 1000 = 0),
  at timestamptz not null default now(),
  -- Who made the change; null where each owner changed sessions of its own.
  actor text,
  action text not null,
  key_ids text[] not null check (cardinality(key_ids) between 1 and 1000),
  -- The first 12 bytes of the sessions' ids, which identify them and are not enough to use them; null for changes to keys.
  subjects bytea[] check (cardinality(subjects) = cardinality(key_ids)),
  -- Arrays of the names of the properties that were set, never their values; null where the action sets none.
  properties jsonb check (jsonb_array_length(properties) = cardinality(key_ids))
) with (toast_tuple_target = 8160);

-- Rows are short enough for their page at any load but the highest, and to compress them takes longer than to write them.
alter table sipher_sessions.changes
  alter column key_ids set storage external,
  alter column subjects set storage external,
  alter column properties set storage external;

-- What is new goes to a list first, and into the index many at once: by the statement that finds the list full, which waits
-- the longer the longer the list is.
create index changes_key_ids on sipher_sessions.changes using gin (key_ids) with (gin_pending_list_limit = 256);

-- Changes to keys are few among those to sessions, and would be looked for long.
create index changes_to_keys on sipher_sessions.changes (id) where action like 'key.%';
