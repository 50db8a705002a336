-- Tokens that count no more: one by its jti, those of a session by its sid, those of a user issued up to a time.
create table belfry_revocations (
  kind text not null,        -- 'token', 'session' or 'user'
  id text not null,
  at integer not null,       -- ms since 1970: of a user, tokens issued up to then are revoked
  until integer,             -- ms since 1970: forgotten then, because the token is over; null: never
  primary key (kind, id)
) strict, without rowid;

-- API keys. The key itself is nowhere: it was shown once.
create table belfry_keys (
  id text primary key,
  hash text not null,        -- SHA-256 of the key, hexadecimal
  name text not null,
  scopes text not null,      -- JSON array
  created integer not null,  -- ms since 1970, like the rest
  expires integer,
  used integer,              -- to the minute
  revoked integer
) strict, without rowid;
