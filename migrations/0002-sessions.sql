-- Sessions. The id is stored as its 32 bytes: half the index of the text form. Its first six bytes are a time, so
-- that inserts touch the right edge of the index only.
--
-- owner_id is the id of an API key's record, or whatever a host's own authentication calls its caller; it is no
-- foreign key, because such callers have no record here and because the tables are distributed apart.
--
-- The fill factor leaves room on each page for the new version of a row, so that moving last_accessed_at or merging
-- a patch (neither of which is indexed) needs no new index entry.
create table sipher_sessions.sessions (
  id bytea primary key check (octet_length(id) = 32),
  owner_id text not null,
  defaults jsonb not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  last_accessed_at timestamptz not null default now()
) with (fillfactor = 85);

-- For the sweep of expired rows, which goes through them in the order of their expiry.
create index sessions_expires_at on sipher_sessions.sessions (expires_at);
