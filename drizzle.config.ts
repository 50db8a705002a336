// For whoever wants drizzle-kit's tools (studio, generate) over the system tables:
// `bun x drizzle-kit studio`. Belfry itself does not need it, so it is not a dependency
// and this file does not import its types.
export default {
  dialect: 'turso',
  schema: './db/system.ts',
  out: './db/migrations',
  dbCredentials: { url: 'file:./data/belfry.db' },
} as const
