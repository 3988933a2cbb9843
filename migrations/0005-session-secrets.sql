-- The values of secret properties, each encrypted by the service: property name -> ciphertext. In a column of their own,
-- so that what stands here is ciphertext and what stands in defaults is not, whatever its form, and both are merged by
-- the same kind of patch.
alter table sipher_sessions.sessions
  add column secrets jsonb not null default '{}' check (jsonb_typeof(secrets) = 'object');
