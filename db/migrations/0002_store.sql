-- What Belfry remembers about itself: the key that cursors are signed with, say.
create table meta (
  name text primary key,
  value text not null
) strict;

-- Writes that were asked for under a key, so that the same key again gets the first answer and
-- changes nothing.
create table idempotency (
  scope text not null,        -- who asked, and for what
  key text not null,
  fingerprint text not null,  -- of the request: another request under the same key is refused
  at integer not null,        -- ms since 1970
  data text,                  -- JSON: the answer; null until it is known
  primary key (scope, key)
) strict, without rowid;

-- Old keys are dropped by age.
create index idempotency_at on idempotency (at);
