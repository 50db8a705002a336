import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { copyFileSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { Centrifuge } from 'centrifuge'
import { buildBinary } from '../../.ci/build.ts'
import { signToken } from '../../src/auth/auth.ts'
import type * as Client from '../../src/client/client.ts'
import { tempFolder, until, type TempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

// One build for all; every test runs it alone in a folder of its own, with no node_modules near.
let home: TempFolder
beforeAll(async () => {
  home = tempFolder()
  await buildBinary({ outfile: home.file('belfry') })
}, 60_000)
afterAll(() => home[Symbol.dispose]())

function emptyFolder(): { readonly folder: TempFolder; readonly command: readonly string[] } {
  const folder = tempFolder()
  copyFileSync(home.file('belfry'), folder.file('belfry'))
  return { folder, command: [folder.file('belfry')] }
}

const tablesFile = `
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
export const notes = sqliteTable('notes', { id: integer().primaryKey(), text: text().notNull() })
`

const appFile = `
import { app, collection, desc, topic } from 'belfry'
import { sql } from 'drizzle-orm'
import { t } from 'elysia'
import { notes } from './tables.ts'

if (!sql || !t) throw new Error('the virtual modules are empty')

export default app({
  name: 'notes',
  collections: {
    notes: collection(notes, {
      read: 'public', create: 'public', orders: { newest: desc(notes.id) }, live: () => 'notes',
    }),
  },
  topics: { notes: topic({ subscribe: 'public', history: { size: 10, ttl: '1h' } }) },
})
`

describe('the compiled binary, alone in an empty folder', () => {
  test('serves the app inside it: page, rows, live prices', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    await using server = await spawnBelfry({
      command,
      args: ['serve', '--app', 'energy'],
      cwd: folder.path,
    })
    const page = await fetch(server.url)
    expect(page.headers.get('content-type')).toStartWith('text/html')
    expect(page.headers.get('content-security-policy')).toStartWith("default-src 'self'")
    const html = await page.text()
    const assets = [...html.matchAll(/(?:src|href)="(\/[^"]+\.(?:js|css))"/g)].map(
      ([, path]) => path,
    )
    expect(assets.length).toBeGreaterThanOrEqual(2)
    for (const asset of assets) expect((await fetch(server.url + asset)).status).toBe(200)

    const client = new Centrifuge(`${server.url.replace('http', 'ws')}/connection/websocket`)
    const heard: unknown[] = []
    const subscription = client.newSubscription('prices:NSW1')
    subscription.on('publication', ({ data }) => void heard.push(data))
    subscription.subscribe()
    client.connect()
    await until(() => heard.length >= 2, 'two intervals arrive')
    client.disconnect()
    expect(heard.at(-1)).toMatchObject({ collection: 'prices/live', row: { region: 'NSW1' } })
    const list = await fetch(`${server.url}/api/prices/live?region=NSW1`)
    const { items } = (await list.json()) as { items: { region: string }[] }
    expect(new Set(items.map(({ region }) => region))).toEqual(new Set(['NSW1']))
  })

  test('serves the exams app inside it: its bank, and an attempt scored', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    const secret = 'a secret of at least thirty-two bytes'
    await using server = await spawnBelfry({
      command,
      args: ['serve', '--app', 'exams'],
      cwd: folder.path,
      env: { JWT_SECRET: secret },
    })
    await until(
      async () => (await fetch(`${server.url}/api/tests/history-001`)).ok,
      'the bank is loaded from inside the binary',
      60_000,
    )
    const question = await fetch(`${server.url}/api/questions/upsc-2?expand=source`)
    expect(await question.json()).toMatchObject({ year: 2024, source: { licence: 'MIT' } })
    const times = { nowMs: Date.now(), ttlMs: 60_000 }
    const attempt = await fetch(`${server.url}/api/tests/history-001/attempts`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await signToken(secret, { sub: 'ann' }, times)}`,
        'content-type': 'application/json',
      },
      body: '{"answers":{}}',
    })
    expect([attempt.status, await attempt.json()]).toMatchObject([201, { attempt: { blank: 25 } }])
  }, 90_000)

  test('serves the community app inside it: its sample, a vote, its order', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    const secret = 'a secret of at least thirty-two bytes'
    await using server = await spawnBelfry({
      command,
      args: ['serve', '--app', 'community'],
      cwd: folder.path,
      env: { JWT_SECRET: secret },
    })
    const comments = `${server.url}/api/comments?count=true&limit=1`
    await until(
      async () => ((await (await fetch(comments)).json()) as { count?: number }).count === 4_473,
      'the sample is loaded from inside the binary',
      60_000,
    )
    const times = { nowMs: Date.now(), ttlMs: 60_000 }
    const vote = await fetch(`${server.url}/api/posts/1/vote`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await signToken(secret, { sub: 'se-7' }, times)}`,
        'content-type': 'application/json',
      },
      body: '{"value":1}',
    })
    expect([vote.status, await vote.json()]).toMatchObject([200, { postId: 1, score: 53 }])
    const top = await fetch(`${server.url}/api/posts?order=top&limit=1&expand=author`)
    expect(await top.json()).toMatchObject({
      items: [{ score: expect.any(Number), licence: 'CC BY-SA 3.0' }],
    })
  }, 90_000)

  test('serves the radio app inside it: its page, what is on air, and the client for any page', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    await using server = await spawnBelfry({
      command,
      args: ['serve', '--app', 'radio'],
      cwd: folder.path,
    })
    const html = await (await fetch(server.url)).text()
    expect(html).toContain('<title>Belfry · Radio</title>')
    const assets = [...html.matchAll(/(?:src|href)="(\/[^"]+\.(?:js|css))"/g)].map(
      ([, path]) => path,
    )
    // One of them is the link to the client itself.
    expect(assets.length).toBeGreaterThanOrEqual(3)
    for (const asset of assets) expect((await fetch(server.url + asset)).status).toBe(200)

    await Bun.write(folder.file('belfry.js'), await fetch(`${server.url}/belfry.js`))
    const { createClient } = (await import(folder.file('belfry.js'))) as Pick<
      typeof Client,
      'createClient'
    >
    const client = createClient({ url: server.url })
    const heard: unknown[] = []
    client.subscribe('live-stream', { message: (data) => heard.push(data) })
    await until(() => heard.length >= 2, 'two tracks are heard', 20_000)
    client.close()
    expect(heard[1]).toMatchObject({ collection: 'plays', op: 'create' })
  }, 60_000)

  test('serves an app file from disk, with relative imports and its own copies of the packages', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    writeFileSync(folder.file('app.ts'), appFile)
    writeFileSync(folder.file('tables.ts'), tablesFile)
    {
      await using server = await spawnBelfry({
        command,
        args: ['serve', './app.ts'],
        cwd: folder.path,
      })
      const post = await fetch(`${server.url}/api/notes`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"text":"hello"}',
      })
      expect(post.status).toBe(201)
      expect(await (await fetch(`${server.url}/api/notes`)).json()).toEqual({
        items: [{ id: 1, text: 'hello' }],
        next: null,
        prev: null,
      })
      server.kill('SIGTERM')
      expect(await server.exited).toBe(0)
    }
    // Closed cleanly: the file is whole without its WAL.
    const wal = folder.file('data/notes.db-wal')
    expect(existsSync(wal) ? statSync(wal).size : 0).toBe(0)
  })

  test('has accounts: signs up, refreshes, and the operator gives a role', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    writeFileSync(
      folder.file('app.ts'),
      `import { app } from 'belfry'\nexport default app({ name: 'club', auth: { accounts: true } })\n`,
    )
    const start = { command, cwd: folder.path }
    await using server = await spawnBelfry({ ...start, args: ['serve', 'app.ts'] })
    const post = async (verb: string, body: object): Promise<Record<string, unknown>> => {
      const headers = { 'content-type': 'application/json' }
      const init = { method: 'POST', headers, body: JSON.stringify(body) }
      const answer = await fetch(`${server.url}/api/auth/${verb}`, init)
      return { status: answer.status, ...((await answer.json()) as object) }
    }
    const account = { email: 'ann@example.com', password: 'correct horse' }
    expect(await post('sign-up', account)).toMatchObject({ status: 201 })
    const { refreshToken, user } = await post('sign-in', account)
    const { id } = user as { id: string }
    const args = ['user', 'role', 'app.ts', '--id', id, '--role', 'editor']
    expect((await runBelfry({ ...start, args })).exitCode).toBe(0)
    expect(await post('refresh', { refreshToken })).toMatchObject({
      ...{ status: 200, user: { role: 'editor' } },
    })
    expect(await post('sign-in', { ...account, password: 'wrong horse' })).toMatchObject({
      status: 401,
    })
  })

  test('migrates', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    const migrate = (...args: string[]) =>
      runBelfry({ command, args: ['migrate', ...args], cwd: folder.path })
    writeFileSync(folder.file('app.ts'), appFile)
    writeFileSync(folder.file('tables.ts'), tablesFile)
    expect(await migrate('apply', 'app.ts')).toMatchObject({ exitCode: 0, stderr: '' })
    const wider = tablesFile.replace('text().notNull()', 'text().notNull().unique()')
    writeFileSync(folder.file('tables.ts'), wider)
    const status = await migrate('status', 'app.ts')
    expect(status).toMatchObject({ exitCode: 1, stderr: '' })
    expect(status.stdout).toContain('table notes: unique (text) is not stored (rebuild)')
    expect(await migrate('apply', 'app.ts')).toMatchObject({ exitCode: 0, stderr: '' })
    expect((await migrate('status', 'app.ts')).exitCode).toBe(0)
  })

  test('plan prints what an app comes to, and all mistakes of a bad one', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    writeFileSync(folder.file('app.ts'), appFile)
    writeFileSync(folder.file('tables.ts'), tablesFile)
    const good = await runBelfry({ command, args: ['plan', 'app.ts'], cwd: folder.path })
    expect(good).toMatchObject({ exitCode: 0, stderr: '' })
    expect(good.stdout).toContain('collection /api/notes  (table notes, key id)')
    expect(existsSync(folder.file('data'))).toBe(false)

    const broken = appFile
      .replace("read: 'public'", "ttl: 'soon', filters: ['txt'], raed: 'public'")
      .replace('{ notes: topic(', "{ 'notes:{': topic(")
      .replace("name: 'notes'", "name: 'Notes!'")
    writeFileSync(folder.file('app.ts'), broken)
    const bad = await runBelfry({ command, args: ['plan', 'app.ts'], cwd: folder.path })
    expect(bad).toMatchObject({ exitCode: 2, stdout: '' })
    expect(bad.stderr).toStartWith('belfry plan: the app file has 6 problems\n')
    for (const key of [
      'name',
      'topics.notes:{',
      'collections.notes.ttl',
      'collections.notes.filters',
      'collections.notes.live',
      'collections.notes.raed',
    ]) {
      expect(bad.stderr).toContain(`  ${key}: `)
    }
  })

  test('backs up while it serves, restores, exports and imports', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    writeFileSync(folder.file('app.ts'), appFile)
    writeFileSync(folder.file('tables.ts'), tablesFile)
    const lines = '{"id":1,"text":"één"}\n{"id":2,"text":"two"}\n'
    writeFileSync(folder.file('notes.jsonl'), lines)
    const belfry = (...args: string[]) => runBelfry({ command, args, cwd: folder.path })
    const exported = async () =>
      (await belfry('export', 'app.ts', '--collection', 'notes', '--to', '-')).stdout
    let path = ''
    {
      await using server = await spawnBelfry({
        command,
        args: ['serve', 'app.ts'],
        cwd: folder.path,
      })
      const imported = await belfry('import', 'app.ts', '--collection', 'notes', 'notes.jsonl')
      expect(imported).toMatchObject({ exitCode: 0, stderr: '' })
      expect(await exported()).toBe(lines)
      const made = await belfry('backup', 'app.ts')
      expect(made.exitCode).toBe(0)
      path = made.stdout.trim()
      expect((await belfry('restore', path, 'app.ts')).stderr).toContain('stop it first')
      await fetch(`${server.url}/api/notes`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"text":"after"}',
      })
      server.kill('SIGTERM')
      expect(await server.exited).toBe(0)
    }
    expect(existsSync(folder.file('data/belfry.sock'))).toBe(false)
    expect((await belfry('restore', path, 'app.ts')).exitCode).toBe(0)
    expect(await exported()).toBe(lines)
    expect((await belfry('backup', 'app.ts')).exitCode).toBe(0)
  }, 60_000)

  test('says what is wrong with the world, and how to mend it', async () => {
    const { folder, command } = emptyFolder()
    using _ = folder
    const cwd = folder.path
    const serve = (env: Record<string, string>, args = ['serve', '--app', 'energy']) =>
      runBelfry({ command, args, cwd, env: { PORT: '0', HOST: '127.0.0.1', ...env } })

    await using server = await spawnBelfry({ command, args: ['serve', '--app', 'energy'], cwd })
    const elsewhere = { DATABASE_URL: `file:${folder.file('other/a.db')}` }
    const inUse = await serve({ ...elsewhere, PORT: String(server.port) })
    expect(inUse.exitCode).toBe(1)
    expect(inUse.stderr).toContain(`port ${server.port}: it is in use`)

    const sameFolder = await serve({})
    expect(sameFolder.stderr).toContain('the data folder is in use by another belfry process')

    writeFileSync(folder.file('file'), 'x'.repeat(10_000))
    const noFolder = await serve({ DATABASE_URL: `file:${folder.file('file/sub/a.db')}` })
    expect(noFolder.stderr).toContain('the data folder cannot be made')
    const noDatabase = await serve({ DATABASE_URL: `file:${folder.file('file')}` })
    expect(noDatabase.stderr).toContain('the database file is damaged or is no SQLite database')

    const environment = await serve({ PORT: 'x', REDIS_URL: 'http://x', LOG_LEVEL: 'loud' })
    expect(environment.exitCode).toBe(2)
    for (const name of ['PORT', 'REDIS_URL', 'LOG_LEVEL'])
      expect(environment.stderr).toContain(`  ${name}: `)

    const none = await serve({}, ['serve', 'nope.ts'])
    expect(none.stderr).toContain(`there is no app file at ${folder.file('nope.ts')}`)
    writeFileSync(folder.file('syntax.ts'), 'export default {')
    const syntax = await serve({}, ['serve', 'syntax.ts'])
    expect(syntax.stderr).toContain('the app file cannot be loaded')
    expect((await serve({}, ['sreve'])).exitCode).toBe(2)
  })
})
