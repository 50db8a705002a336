import { expect, test } from 'bun:test'
import type { BackupOptions } from '../../src/backup/declare.ts'
import { Fault } from '../../src/fault.ts'
import { app } from '../../src/plan/declare.ts'
import { compilePlan } from '../../src/plan/plan.ts'

const compile = (backup?: unknown) =>
  compilePlan(
    app({ name: 'test', ...(backup === undefined ? {} : { backup: backup as BackupOptions }) }),
  ).backup

test('backup: what is not said has a default; without the option there is no clock', () => {
  expect(compile()).toBeUndefined()
  expect(compile({})).toEqual({ everyMs: 86_400_000, keep: 7, folder: undefined })
  expect(compile({ every: '1h', keep: 3, folder: '/mnt/x' })).toEqual({
    everyMs: 3_600_000,
    keep: 3,
    folder: '/mnt/x',
  })
})

test.each<[unknown, string[]]>([
  [
    { every: '10s', keep: 0, folder: '', kepe: 1 },
    ['backup.every', 'backup.folder', 'backup.keep', 'backup.kepe'],
  ],
  [{ every: 'daily', keep: 1.5 }, ['backup.every', 'backup.keep']],
  ['24h', ['backup']],
  [null, ['backup']],
])('backup: %j is refused by its keys', (backup, keys) => {
  let fields: string[] = []
  try {
    compile(backup)
  } catch (thrown) {
    fields = thrown instanceof Fault ? (thrown.fields ?? []).map(({ field }) => field) : []
  }
  expect(fields.toSorted()).toEqual(keys)
})
