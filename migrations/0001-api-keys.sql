-- API keys. The secret itself is never stored: it is long and random, so that its plain SHA-256 hash is enough to
-- look it up by, and the first characters are kept for people to recognise a key in a list.
create table sipher_sessions.api_keys (
  id text primary key,
  secret_hash bytea not null unique,
  display_prefix text not null,
  tier text not null check (tier in ('free', 'pro', 'enterprise')),
  name text not null,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
