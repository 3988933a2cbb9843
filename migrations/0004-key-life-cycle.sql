-- The life of a key beyond its creation: secrets that are replaced, and when it was last used.
--
-- A key has at most two secrets that work: its own, and the one before until its grace period ends. Columns, not a table
-- of secrets, so that authentication reads one row and a rotation, a change of tier or a revocation writes one.
alter table sipher_sessions.api_keys
  add column previous_secret_hash bytea,
  add column previous_ends_at timestamptz,
  add column last_used_at timestamptz,
  add constraint api_keys_previous_secret check ((previous_secret_hash is null) = (previous_ends_at is null));

-- Holds those keys only that were rotated with a grace period.
create unique index api_keys_previous_secret_hash on sipher_sessions.api_keys (previous_secret_hash)
  where previous_secret_hash is not null;

-- Room on each page for the new version of a row, so that moving last_used_at needs no new index entry.
alter table sipher_sessions.api_keys set (fillfactor = 85);
