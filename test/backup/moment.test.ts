import { expect, test } from 'bun:test'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { unpack } from '../../src/backup/pack.ts'
import { collection } from '../../src/collections/declare.ts'
import { must } from '../../src/lib/assert.ts'
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry, runBelfry } from '../process.ts'
import { createRandom } from '../lib/random.ts'
import { runServer } from '../server.ts'
import { namesIn, rowsOf } from './setup.ts'

const accounts = sqliteTable('accounts', {
  id: integer().primaryKey(),
  balance: integer().notNull(),
  memo: text().notNull(),
})

/** Enough that copying takes a while, and that a copy page by page would mix moments. */
const accountCount = 3_000
const startBalance = 1_000

test('a backup while transfers go on is one moment: sums hold, rows are the replay of the log', async () => {
  using folder = tempFolder()
  await using server = await runServer({
    folder,
    app: { collections: { accounts: collection(accounts, { read: 'public' }) } },
  })
  const { collections, backups, store } = server.rooms
  const plan = must(collections.plans[0], () => 'there is one')
  const random = createRandom(7)
  const balances = Array.from({ length: accountCount }, () => startBalance)
  const rowOf = (id: number) => ({
    id,
    balance: balances[id],
    memo: 'm'.repeat(random.below(2_000)),
  })
  await collections.upsert([{ plan, rows: balances.map((_, id) => rowOf(id)) }])

  let transfers = 0
  let isOver = false
  const transfer = async (): Promise<void> => {
    while (!isOver) {
      const [from, to] = [random.below(accountCount), random.below(accountCount)]
      if (from === to) continue
      const amount = 1 + random.below(100)
      balances[from] = (balances[from] ?? 0) - amount
      balances[to] = (balances[to] ?? 0) + amount
      await collections.upsert([{ plan, rows: [rowOf(from), rowOf(to)] }])
      transfers++
    }
  }
  const writers = Array.from({ length: 3 }, transfer)
  await until(() => transfers > 20, 'transfers go on')
  let before = [0, 0]
  let made = await backups.run()
  // Until writes went on beside one, before the copied moment and after it.
  await until(
    async () => {
      before = [transfers, store.stats().seq]
      made = await backups.run()
      return transfers > (before[0] ?? 0) + 5 && made.seq < store.stats().seq
    },
    'a backup while transfers go on',
    20_000,
  )
  isOver = true
  await Promise.all(writers)

  expect(made.seq).toBeGreaterThanOrEqual(before[1] ?? 0)

  const copy = folder.file('copy.db')
  await unpack(made.path, copy)
  const [[sum] = [], [newest] = [], rows = [], log = []] = await rowsOf(
    copy,
    'select sum(balance) from accounts',
    'select max(seq) from log',
    'select id, balance, memo from accounts order by id',
    'select data from log order by seq',
  )
  expect(sum?.[0]).toBe(accountCount * startBalance)
  expect(newest?.[0]).toBe(made.seq)
  const replayed = new Map<number, unknown[]>()
  for (const [data] of log) {
    const { row } = JSON.parse(String(data)) as {
      row: { id: number; balance: number; memo: string }
    }
    replayed.set(row.id, [row.id, row.balance, row.memo])
  }
  expect(rows).toEqual([...replayed.values()].toSorted((a, b) => Number(a[0]) - Number(b[0])))
  // Nothing that was deleted is still held open: it would keep its disk space.
  const held = namesIn('/proc/self/fd').length > 0 ? openFiles() : []
  expect(held.filter((path) => path.includes(folder.path) && path.endsWith('(deleted)'))).toEqual(
    [],
  )
})

function openFiles(): string[] {
  const { stdout } = Bun.spawnSync(['ls', '-l', `/proc/${process.pid}/fd`])
  return stdout.toString().split('\n')
}

const appFile = `
import { app, collection } from 'belfry'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
export default app({ name: 'notes', collections: { notes: collection(notes, { read: 'public' }) } })
`

test('kill -9 during a backup: no backup of that name, the server starts, the next run sweeps', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  const lines = Array.from({ length: 20_000 }, (_, id) =>
    JSON.stringify({ id, text: Bun.hash(`${id}`).toString(36).repeat(40) }),
  )
  await Bun.write(folder.file('notes.jsonl'), lines.join('\n'))
  const belfry = (...args: string[]) => runBelfry({ args, cwd: folder.path })
  const imported = await belfry('import', 'app.ts', '--collection', 'notes', 'notes.jsonl')
  expect(imported.exitCode).toBe(0)
  const backups = folder.file('data/backups')

  // Once while the copy is being written, once while it is being compressed. A machine that is busy may look too late:
  // then what was made is of no use here, and the next one is met.
  for (const suffix of ['.db', '.zst']) {
    // Parts begin with a dot, and are sorted before a backup.
    const isThere = () => {
      const last = namesIn(backups).at(-1) ?? ''
      return last.startsWith('.') && last.endsWith(suffix)
    }
    let isHit = false
    while (!isHit) {
      await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
      let isOver = false
      const asked = belfry('backup', 'app.ts').finally(() => (isOver = true))
      await until(() => isOver || isThere(), `a ${suffix} begins`)
      server.kill('SIGKILL')
      await server.exited
      isHit = isThere()
      const { exitCode } = await asked
      if (isHit) expect(exitCode).toBe(1)
      else rmSync(backups, { recursive: true })
    }
  }
  const { stdout, exitCode } = await belfry('backup', 'app.ts')
  expect(exitCode).toBe(0)
  expect(namesIn(backups).map((name) => `${backups}/${name}`)).toEqual([stdout.trim()])
  expect(existsSync(folder.file('data/belfry.sock'))).toBe(true)
  rmSync(folder.file('data/notes.db'))
  const restored = await belfry('restore', stdout.trim(), 'app.ts')
  expect(restored.exitCode).toBe(0)
  await belfry('export', 'app.ts', '--to', 'out')
  expect(readFileSync(folder.file('out/notes.jsonl'), 'utf8').trimEnd()).toBe(lines.join('\n'))
}, 60_000)
