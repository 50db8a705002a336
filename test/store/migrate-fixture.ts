/** A server's start, as far as the tables: argv[2] is a remote database. Prints what it changed. */
import { index, integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { systemClock } from '../../src/lib/clock.ts'
import { migrate } from '../../src/store/migrate.ts'
import { openMigrationDb } from '../../src/store/migration-db.ts'
import { createTestLog } from '../harness.ts'

const things = sqliteTable(
  'things',
  { id: integer().primaryKey(), name: text(), extra: text().notNull().default('') },
  (t) => [index('things_name').on(t.name)],
)

const log = createTestLog()
const database = {
  kind: 'remote',
  primary: { url: process.argv[2] ?? '' },
  replicas: [],
} as const
const { db, stop } = await openMigrationDb({ clock: systemClock }, database, 'write')
process.stdout.write('ready\n')
for await (const _ of console) break
await migrate(db, [things], log)
await stop()
process.stdout.write(JSON.stringify(log.lines.map(({ event }) => event)))
process.exit(0)
