import { expect, test } from 'bun:test'
import { forgetOver } from '../../src/auth/forget.ts'
import { openStore, tempFolder } from '../harness.ts'

test('what is over goes, however much it is; the rest stays', async () => {
  using folder = tempFolder()
  await using store = await openStore(folder.file('a.db'), [])
  const now = Date.UTC(2026, 0, 1)
  const insert = `insert into belfry_revocations (kind, id, at, until)
    select ?, ? || value, 0, ? from (with recursive n(value) as (select 1 union all select value + 1 from n where value < ?)
    select value from n)`
  await store.write([
    { sql: insert, params: ['token', 'over ', now - 1, 1_234] },
    { sql: insert, params: ['session', 'over ', now + 1, 10] },
    { sql: insert, params: ['user', 'never ', null, 10] },
  ])
  await forgetOver(store, { table: 'belfry_revocations', id: 'id', over: 'until' }, now)
  const sql = 'select kind, count(*) from belfry_revocations group by kind order by kind'
  expect(await store.read({ sql, params: [] })).toEqual([
    ['session', 10],
    ['user', 10],
  ])
})
