-- Units of something that nodes share, each held for a while (src/store/shares.ts). Times are this database's own.
create table belfry_shares (
  name text not null,
  holder text not null,    -- one node's one time of joining
  units integer not null,  -- its to use
  wants integer not null,  -- what it could use
  turn integer not null,   -- of the holder's renewals: one that comes late undoes nothing
  until integer not null,  -- ms since 1970: the units are free then
  primary key (name, holder)
) strict, without rowid;
