import { describe, expect, test } from 'bun:test'
import { createClient } from '@libsql/client'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { systemMigrations } from '../../db/system.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { applyMigration, migrate, planMigration } from '../../src/store/migrate.ts'
import { openMigrationDb } from '../../src/store/migration-db.ts'
import { createTestLog } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'
import { children, family, users } from './migrations.ts'

const open = (url: string) =>
  openMigrationDb(
    { clock: systemClock },
    { kind: 'remote', primary: { url }, replicas: [] },
    'write',
  )

const fixture = `${import.meta.dir}/migrate-fixture.ts`

describe.skipIf(!requireService('sqld'))('migrations of a remote primary', () => {
  test('of processes that start at once, one migrates', async () => {
    await using sqld = await startSqld()
    const client = createClient({ url: sqld.url })
    await client.execute('create table things (id integer primary key not null, name text)')
    const starts = Array.from({ length: 3 }, () =>
      Bun.spawn([process.execPath, fixture, sqld.url], {
        stdin: 'pipe',
        stdout: 'pipe',
        stderr: 'inherit',
      }),
    )
    const outputs = starts.map(({ stdout }) =>
      stdout.pipeThrough(new TextDecoderStream()).getReader(),
    )
    for (const output of outputs) expect((await output.read()).value).toBe('ready\n')
    for (const { stdin } of starts) {
      void stdin.write('go\n')
      await stdin.end()
    }
    const told: string[][] = []
    for (const output of outputs) told.push(JSON.parse((await output.read()).value ?? '[]'))
    const [one = [], ...others] = told.toSorted((a, b) => b.length - a.length)
    expect(others).toEqual([[], []])
    expect(one).toEqual([
      ...systemMigrations.map(() => 'store.migrated'),
      ...['store.schema_applied', 'store.schema_applied', 'store.log_triggers_made'],
    ])
    for (const start of starts) expect(await start.exited).toBe(0)
  }, 60_000)

  test('a rebuild keeps children, renames follow, a failure undoes all', async () => {
    await using sqld = await startSqld()
    const client = createClient({ url: sqld.url })
    const rows = async (sql: string) =>
      (await client.execute(sql)).rows.map((row) => [...Object.values(row)])
    const { db, stop } = await open(sqld.url)
    await migrate(db, family(users), createTestLog())
    await client.executeMultiple(`
      insert into users (id, nick) values (1, 'ann'), (2, null);
      insert into posts (id, user_id) values (10, 1), (11, 1), (12, 2);
      create view names as select nick from users;
    `)
    const strict = sqliteTable('users', { id: integer().primaryKey(), nick: text().notNull() })
    const refused = applyMigration(db, family(strict))
    await expect(refused).rejects.toMatchObject({
      fields: [
        {
          field: 'in the way',
          message: 'column users.nick becomes not null and has no default: 1 row has null in it',
        },
      ],
    })
    const handle = text().notNull().default('?').unique()
    const after = family(sqliteTable('users', { id: integer().primaryKey(), handle }))
    await applyMigration(db, after, { rename: ['users.nick=handle'] })
    expect(await rows('select id, handle from users order by id')).toEqual([
      [1, 'ann'],
      [2, '?'],
    ])
    expect(await rows('select * from posts')).toEqual(children)
    expect(await rows('select * from names order by 1')).toEqual([['?'], ['ann']])
    expect((await planMigration(db, after)).isInStep).toBe(true)
    await expect(client.execute('insert into posts values (13, 77)')).rejects.toThrow('FOREIGN KEY')
    await client.execute('delete from users where id = 1')
    expect(await rows('select * from posts')).toEqual([[12, 2]])
    await stop()
  }, 60_000)
})
