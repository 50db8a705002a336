/** The verbs that move data, as their users call them. */
import { describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { slicesOf } from '../../src/cli/lines.ts'
import { tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'
import { requireService, startSqld } from '../services.ts'

const appFile = `
import { app, collection } from 'belfry'
import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core'
const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const all = sqliteTable('everything', {
  region: text('the_region').notNull(),
  at: integer({ mode: 'timestamp_ms' }).notNull(),
  day: integer({ mode: 'timestamp' }),
  price: real(),
  isOpen: integer('is_open', { mode: 'boolean' }).notNull().default(false),
  data: text({ mode: 'json' }),
  note: text(),
}, (t) => [primaryKey({ columns: [t.region, t.at] })])
export default app({
  name: 'notes',
  collections: { notes: collection(notes, { read: 'public' }), 'all/kinds': collection(all, { read: 'public' }) },
})
`

const kinds = [
  ...[-1.5, 0, 1e300].map((price, at) => ({
    region: 'a,b/ü 🌍 "quoted"',
    at: new Date(Date.UTC(2021, 0, 1, 0, at)).toISOString(),
    day: null,
    price,
    isOpen: at === 1,
    data: { deep: [1, 'zwei', null, { ключ: '值' }] },
    note: null,
  })),
  {
    region: '~',
    at: '1969-12-31T23:59:59.999Z',
    day: '2024-02-29T00:00:00.000Z',
    price: null,
    isOpen: false,
    data: ['line\u2028separator', '\\', '\n'],
    note: 'tab\tnewline\nnul-free \u007f end',
  },
]

const jsonl = (rows: readonly object[]): string =>
  rows.map((row) => `${JSON.stringify(row)}\n`).join('')

function setUp() {
  const folder = tempFolder()
  writeFileSync(folder.file('app.ts'), appFile)
  writeFileSync(folder.file('kinds.jsonl'), jsonl(kinds))
  const belfry = (args: readonly string[], env: Record<string, string> = {}) =>
    runBelfry({ args, cwd: folder.path, env })
  return { folder, belfry }
}

describe('export and import', () => {
  test('a round trip is equal: unicode, nulls, dates, json, composite keys; with a server and without', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    const into = ['import', 'app.ts', '--collection', 'all/kinds']
    const first = await belfry([...into, 'kinds.jsonl'])
    expect(first).toMatchObject({
      ...{ exitCode: 0, stderr: '' },
      stdout: 'all/kinds: 4 rows, 4 of them new or different\n',
    })
    const out = await belfry(['export', 'app.ts', '--to', 'out'])
    expect(out.exitCode).toBe(0)
    expect(out.stdout).toBe(
      `${folder.file('out/notes.jsonl')}\n${folder.file('out/all/kinds.jsonl')}\n`,
    )
    expect(readFileSync(folder.file('out/all/kinds.jsonl'), 'utf8')).toBe(jsonl(kinds))
    expect(readFileSync(folder.file('out/notes.jsonl'), 'utf8')).toBe('')
    expect(readdirSync(folder.file('out/all'))).toEqual(['kinds.jsonl'])

    // The other way, into another database, by its server, and out while it serves.
    const env = { DATABASE_URL: `file:${folder.file('second/b.db')}` }
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path, env })
    expect((await belfry([...into, 'out/all/kinds.jsonl'], env)).exitCode).toBe(0)
    const listed = (await (await fetch(`${server.url}/api/all/kinds`)).json()) as {
      items: object[]
    }
    expect(jsonl(listed.items)).toBe(jsonl(kinds))
    const piped = await belfry(['export', 'app.ts', '--collection', 'all/kinds', '--to', '-'], env)
    expect(piped.stdout).toBe(jsonl(kinds))
    expect(piped.stderr).toBe('all/kinds: 4 rows\n')
  })

  test.skipIf(!requireService('sqld'))('works with a database on a server, too', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    await using primary = await startSqld()
    const env = { DATABASE_URL: primary.url }
    const imported = await belfry(
      ['import', 'app.ts', '--collection', 'all/kinds', 'kinds.jsonl'],
      env,
    )
    expect(imported).toMatchObject({ exitCode: 0, stderr: '' })
    const out = await belfry(['export', 'app.ts', '--collection', 'all/kinds', '--to', '-'], env)
    expect(out.stdout).toBe(jsonl(kinds))
    expect(out.stderr).toContain('the database is on a server')
    expect(existsSync(folder.file('data'))).toBe(false)
  })

  test('wrong lines stop it with their numbers, or are passed over', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    writeFileSync(folder.file('bad.jsonl'), '{"id":1,"text":"a"}\n{"id":2}\nnope\n')
    const run = (...more: string[]) =>
      belfry(['import', 'app.ts', '--collection', 'notes', 'bad.jsonl', ...more])
    const stopped = await run()
    expect(stopped).toMatchObject({
      exitCode: 1,
      stdout: 'notes: 0 rows, 0 of them new or different\n',
    })
    expect(stopped.stderr).toStartWith(
      'line 2: text is required\nline 3: is not valid JSON\nstopped: nothing was imported from line 1 on\n',
    )
    expect(await run('--skip-invalid')).toMatchObject({
      exitCode: 0,
      stdout: 'notes: 1 rows, 1 of them new or different\n',
    })
  })

  test('says what it was not told, or told wrongly', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    const told = async (...args: string[]) => {
      const { stderr, exitCode } = await belfry(args)
      return [exitCode, stderr.split('\n')[0]]
    }
    expect(await told('import', 'app.ts', 'kinds.jsonl')).toEqual([
      2,
      'belfry import: say where to: --collection <path>',
    ])
    expect(await told('import', 'app.ts', '--collection', 'x', 'kinds.jsonl')).toEqual([
      1,
      'belfry import: the app notes has no collection x (it has: notes, all/kinds)',
    ])
    expect(await told('import', 'app.ts', '--collection', 'notes', 'none.jsonl')).toEqual([
      1,
      'belfry import: there is no file none.jsonl',
    ])
    expect(await told('export', 'app.ts', '--to', '-')).toEqual([
      2,
      'belfry export: to stdout goes one collection: choose it with --collection <path>',
    ])
    expect(await told('export', 'app.ts')).toEqual([
      1,
      `belfry export: there is no database at ${folder.file('data/notes.db')}`,
    ])
    expect(await told('backup', 'app.ts', '--keep', '0')).toEqual([
      2,
      'belfry backup: --keep 0 is no number from 1 on',
    ])
    expect(existsSync(folder.file('data'))).toBe(false)
  })
})

describe('backup and restore', () => {
  test('by the server, by itself, listed, kept, refused while served, put back', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    const list = async () =>
      (await belfry(['backup', 'app.ts', '--list'])).stdout.trimEnd().split('\n').filter(Boolean)
    let first = ''
    {
      await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
      await belfry(['import', 'app.ts', '--collection', 'all/kinds', 'kinds.jsonl'])
      const made = await belfry(['backup', 'app.ts'])
      expect(made.exitCode).toBe(0)
      expect(made.stderr).toContain('up to log entry 4, in ')
      first = made.stdout.trim()
      const refused = await belfry(['restore', first, 'app.ts'])
      expect(refused).toMatchObject({ exitCode: 1, stdout: '' })
      expect(refused.stderr).toBe(
        `belfry restore: the data folder is in use by another belfry process: ${folder.file('data')}\n` +
          '  hint: a restore replaces what a server serves: stop it first\n',
      )
      server.kill('SIGTERM')
      await server.exited
    }
    writeFileSync(folder.file('more.jsonl'), jsonl([{ id: 1, text: 'later' }]))
    await belfry(['import', 'app.ts', '--collection', 'notes', 'more.jsonl'])
    const second = (await belfry(['backup', 'app.ts'])).stdout.trim()
    expect((await list()).map((line) => line.split('  ').at(-1))).toEqual([second, first])

    const restored = await belfry(['restore', first, 'app.ts'])
    expect(restored).toMatchObject({ exitCode: 0, stdout: `${folder.file('data/notes.db')}\n` })
    expect(restored.stderr).toContain('what was there is kept as ')
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
    const items = async (path: string) =>
      ((await (await fetch(`${server.url}/api/${path}`)).json()) as { items: unknown[] }).items
        .length
    expect([await items('notes'), await items('all/kinds')]).toEqual([0, 4])
    const third = (await belfry(['backup', 'app.ts', '--keep', '1'])).stdout.trim()
    expect((await list()).map((line) => line.split('  ').at(-1))).toEqual([third])
  })

  test('a server of another app in the folder is not asked, whichever its database', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    writeFileSync(folder.file('other.ts'), appFile.replace("name: 'notes'", "name: 'other'"))
    const args = ['serve', 'other.ts']
    const asked = async (env: Record<string, string>) => {
      await using _server = await spawnBelfry({ args, cwd: folder.path, env })
      // With the same database, and, by default, with another in the same folder.
      return [await belfry(['backup', 'app.ts'], env), await belfry(['backup', 'app.ts'])]
    }
    for (const { stderr, exitCode } of await asked({ DATABASE_URL: 'file:data/one.db' })) {
      expect(exitCode).toBe(1)
      expect(stderr).toContain('the data folder is served as other, not as notes')
    }
  })

  test('a database on a server is neither backed up nor restored here', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    for (const args of [
      ['backup', 'app.ts'],
      ['restore', 'kinds.jsonl', 'app.ts'],
    ]) {
      const { stderr, exitCode } = await belfry(args, { DATABASE_URL: 'libsql://db.example.com' })
      expect(exitCode).toBe(1)
      expect(stderr).toContain('is for a database file, and DATABASE_URL names a server')
      expect(stderr).toContain('belfry export and belfry import')
    }
  })

  const canMount =
    Bun.spawnSync(['unshare', '-rm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).exitCode === 0
  test.skipIf(!canMount)('a full disk is said, and nothing is left on it', async () => {
    const { folder, belfry } = setUp()
    using _ = folder
    const noise = (id: number) =>
      Array.from({ length: 20 }, (__, at) => Bun.hash(`${id} ${at}`)).join('')
    const rows = Array.from({ length: 2_000 }, (__, id) => ({ id, text: noise(id) }))
    writeFileSync(folder.file('rows.jsonl'), jsonl(rows))
    await belfry(['import', 'app.ts', '--collection', 'notes', 'rows.jsonl'])
    mkdirSync(folder.file('small'))
    // The first has no room for the copy, the second none for what it compresses to.
    for (const size of ['500k', '2500k']) {
      const main = `${import.meta.dir}/../../src/main.ts`
      const script = `mount -t tmpfs -o size=${size} tmpfs small && ${process.execPath} ${main} backup app.ts --to small; echo "exit $?" >&2; ls -A small`
      const run = Bun.spawnSync(['unshare', '-rm', 'sh', '-c', script], { cwd: folder.path })
      expect(run.stderr.toString()).toContain('the disk is full')
      expect(run.stderr.toString()).toContain('exit 1')
      expect(run.stdout.toString()).toBe('')
    }
  })
})

describe('slices of lines', () => {
  const slices = async (chunks: readonly string[], linesMax: number) => {
    const found: [number, string][] = []
    const source = (async function* () {
      for (const chunk of chunks) yield await Promise.resolve(new TextEncoder().encode(chunk))
    })()
    for await (const { firstLine, body } of slicesOf(source, linesMax)) {
      found.push([firstLine, new TextDecoder().decode(body)])
    }
    return found
  }

  test('are whole lines, however the bytes come', async () => {
    const text = 'a\nbb\n\ncccc\nd'
    const expected: [number, string][] = [
      [1, 'a\nbb\n'],
      [3, '\ncccc\n'],
      [5, 'd'],
    ]
    expect(await slices([text], 2)).toEqual(expected)
    expect(await slices(text.split(''), 2)).toEqual(expected)
    expect(await slices(['a\nb', 'b\n\nc', 'ccc\n', 'd'], 2)).toEqual(expected)
    expect(await slices([], 2)).toEqual([])
  })
})
