-- Built-in accounts. Times are ms since 1970; hashes are SHA-256, hexadecimal.
create table belfry_users (
  id text primary key,        -- UUID v7
  email text not null,        -- canonical, see src/auth/email.ts
  password text not null,     -- argon2id, as a PHC string
  role text,
  created integer not null,
  verified integer,           -- since then the address is known to be the user's own
  disabled integer
) strict, without rowid;

create unique index belfry_users_email on belfry_users (email);

-- One for each sign-in. A refresh token is nowhere: it was given out once.
create table belfry_sessions (
  id text primary key,        -- the claim sid of its access tokens
  family text not null,       -- hash of what all its refresh tokens begin with
  user text not null,
  token text not null,        -- hash of the refresh token that is next
  previous text,              -- hash of the one before
  rotated integer not null,   -- when the next one was given out
  repeated integer,           -- when the one before came again although its time was over
  place text not null,        -- from where it was opened: a keyed hash of the address
  created integer not null,
  expires integer not null
) strict, without rowid;

create unique index belfry_sessions_family on belfry_sessions (family);

create index belfry_sessions_user on belfry_sessions (user, rotated);

create index belfry_sessions_expires on belfry_sessions (expires);

-- What was mailed to verify an address or to reset a password: good once.
create table belfry_mail_tokens (
  hash text primary key,
  kind text not null,         -- 'verify' or 'reset'
  user text not null,
  password text,              -- of a sign-up: becomes the account's when the address is verified
  expires integer not null
) strict, without rowid;

create index belfry_mail_tokens_user on belfry_mail_tokens (user);

create index belfry_mail_tokens_expires on belfry_mail_tokens (expires);
