import { describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection } from '../../src/collections/declare.ts'
import { topic } from '../../src/realtime/declare.ts'
import { tempFolder } from '../harness.ts'
import { runServer } from '../server.ts'

const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
const app = {
  collections: { 'my/notes': collection(notes, { read: 'public', live: () => 'notes' }) },
  topics: { notes: topic({ subscribe: 'public', history: { size: 10, ttl: '1h' as const } }) },
}

function ask(socket: string, path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`http://belfry${path}`, { unix: socket, ...init })
}

describe('the admin socket', () => {
  test('is there while the server is, for its owner alone, and takes the place of a stale one', async () => {
    using folder = tempFolder()
    const socket = folder.file('belfry.sock')
    // As a killed process leaves it.
    const script = `Bun.serve({ unix: ${JSON.stringify(socket)}, fetch: () => new Response() }); process.kill(process.pid, 'SIGKILL')`
    Bun.spawnSync([process.execPath, '-e', script])
    expect(existsSync(socket)).toBe(true)
    {
      await using server = await runServer({ app, folder })
      expect((statSync(socket).mode & 0o777).toString(8)).toBe('600')
      expect(await (await ask(socket, '/status')).json()).toMatchObject({
        status: 'ok',
        app: 'test',
        pid: process.pid,
        database: folder.file('test.db'),
        backup: { failures: 0 },
      })
      // On the port there are no such doors.
      expect((await server.get('/status')).status).toBe(404)
      expect((await server.get('/backup', { method: 'POST', body: '{}' })).status).toBe(404)
    }
    expect(existsSync(socket)).toBe(false)
  })

  test('is reached under a path longer than a socket address', async () => {
    using folder = tempFolder()
    const deep = join(folder.path, 'x'.repeat(120))
    mkdirSync(deep)
    await using _ = await runServer({ app, folder, env: { DATABASE_URL: `file:${deep}/test.db` } })
    expect((await ask(join(deep, 'belfry.sock'), '/status')).status).toBe(200)
  })

  test('a file of that name is left alone, and the server serves without', async () => {
    using folder = tempFolder()
    writeFileSync(folder.file('belfry.sock'), 'mine')
    await using server = await runServer({ app, folder })
    expect(await Bun.file(folder.file('belfry.sock')).text()).toBe('mine')
    expect(server.log.lines.map(({ event }) => event)).toContain('local.not_listening')
    expect((await server.get('/api/health')).status).toBe(200)
  })

  test('imports through the server: the cache forgets, and listeners hear', async () => {
    using folder = tempFolder()
    await using server = await runServer({ app, folder })
    const list = async () =>
      (await (await server.get('/api/my/notes')).json()) as { items: unknown }
    expect((await list()).items).toEqual([])
    const body = '{"id":1,"text":"a"}\n\n{"id":2,"text":"b"}\n'
    const socket = folder.file('belfry.sock')
    const first = await ask(socket, '/import/my/notes', { method: 'POST', body })
    expect(await first.json()).toEqual({ rows: 2, changed: 2, wrong: 0, problems: [] })
    expect((await list()).items).toEqual([
      { id: 1, text: 'a' },
      { id: 2, text: 'b' },
    ])
    const { publications } = server.rooms.realtime.history('notes', {
      limit: 10,
      since: undefined,
      reverse: false,
    })
    expect(publications.length).toBe(2)
    // Again: nothing differs, nothing is written or told.
    const again = await ask(socket, '/import/my/notes', { method: 'POST', body })
    expect(await again.json()).toMatchObject({ rows: 2, changed: 0 })
  })

  test('answers what it cannot do with a fault and its hint', async () => {
    using folder = tempFolder()
    await using _ = await runServer({ app, folder })
    const socket = folder.file('belfry.sock')
    const post = async (path: string, body: string) => {
      const headers = { 'content-type': 'application/json' }
      const answer = await ask(socket, path, { method: 'POST', headers, body })
      return [answer.status, await answer.json()]
    }
    expect(await post('/import/nope', '')).toEqual([
      404,
      { code: 'not_found', message: 'this server has no collection nope' },
    ])
    expect(await post('/backup', '{"folder":"here","keep":0}')).toEqual([
      400,
      {
        code: 'invalid',
        message: 'the request is malformed',
        fields: [
          { field: 'folder', message: 'must be an absolute path' },
          { field: 'keep', message: 'must be an integer of at least 1' },
        ],
      },
    ])
    const [status, told] = await post('/backup', JSON.stringify({ folder: folder.file('test.db') }))
    expect([status, told]).toEqual([503, expect.objectContaining({ code: 'unavailable' })])
  })
})

test('metrics tell of the newest backup, also of one made before this process', async () => {
  using folder = tempFolder()
  const gauges = async (server: { get(path: string): Promise<Response> }) =>
    (await (await server.get('/api/metrics')).text())
      .split('\n')
      .filter((line) => line.startsWith('belfry_backup'))
      .map((line) => line.split(' ')[0])
  {
    await using server = await runServer({ app, folder })
    expect(await gauges(server)).toEqual(['belfry_backup_failures_total'])
    await server.rooms.backups.run()
    expect(await gauges(server)).toEqual([
      'belfry_backup_failures_total',
      'belfry_backup_last_timestamp_seconds',
      'belfry_backup_last_bytes',
      'belfry_backup_last_duration_seconds',
    ])
  }
  await using server = await runServer({ app, folder })
  expect(await gauges(server)).toContain('belfry_backup_last_timestamp_seconds')
})
