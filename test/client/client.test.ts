/** The client with a real server: the radio app, and its bundle as a page gets it. */
import { describe, expect, test } from 'bun:test'
import type radio from '../../src/apps/radio.ts'
import { createClient, Problem, type Client, type ClientOptions } from '../../src/client/client.ts'
import { signToken } from '../../src/auth/auth.ts'
import { tempFolder, until } from '../harness.ts'
import { runRadio } from '../apps/radio-server.ts'
import { testSecret } from '../server.ts'

type Radio = Client<typeof radio>

/** As behind a proxy that does not let it through. */
class NoWebSocket {
  onclose: ((event: { code: number; reason: string }) => void) | undefined
  constructor() {
    queueMicrotask(() => this.onclose?.({ code: 1006, reason: '' }))
  }
  close(): void {}
}

const quick = { minReconnectDelay: 1, maxReconnectDelay: 20, websocket: WebSocket }

const tokenOf = (sub: string, ttlMs = 600_000) =>
  signToken(testSecret, { sub }, { nowMs: Date.now(), ttlMs })

const clientOf = (url: string, options: ClientOptions = {}): Radio =>
  createClient<typeof radio>({ url, centrifuge: quick, ...options })

async function problemOf(call: Promise<unknown>): Promise<Problem> {
  try {
    await call
  } catch (error) {
    if (error instanceof Problem) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('collection()', () => {
  test('lists, pages, creates, changes and removes', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const client = clientOf(server.url, { token: () => tokenOf('ann') })
    const plays = client.collection('plays')
    const first = await plays.list({ order: 'oldest', limit: 2, program: 'Mid Dawns', count: true })
    expect(first.items.map(({ title }) => title)).toEqual([
      'Mess Is Mine',
      'Treat Me Like Your Mother',
    ])
    expect(first.count).toBeGreaterThan(20)
    const second = await plays.list({
      ...{ order: 'oldest', limit: 1, program: 'Mid Dawns' },
      after: first.next ?? '',
    })
    expect(second.items.map(({ title }) => title)).toEqual(['One'])
    // A key that is a time.
    const at = new Date(first.items[0]?.at ?? '')
    expect(await plays.get(at)).toEqual(first.items[0] as never)

    const profiles = client.collection('profiles')
    expect(await profiles.create({ name: 'Ann' })).toMatchObject({ id: 'ann', name: 'Ann' })
    expect(await profiles.update('ann', { about: 'Hello' })).toMatchObject({ about: 'Hello' })
    const mixes = client.collection('mixes')
    const mix = await mixes.create({ title: 'One', tracks: [{ title: 'One', artist: 'U2' }] })
    const listed = await mixes.list({ userId: 'ann', expand: 'profile' })
    expect(listed.items).toMatchObject([{ id: mix.id, profile: { name: 'Ann' } }])
    await mixes.remove(mix.id)
    expect(await problemOf(mixes.get(mix.id))).toMatchObject({ status: 404, code: 'not_found' })
    client.close()
  })

  test('a refusal is a Problem with every wrong field; so is no answer', async () => {
    using folder = tempFolder()
    const server = await runRadio(folder)
    await using _ = server
    const client = clientOf(server.url, { token: await tokenOf('ann') })
    const wrong = await problemOf(client.collection('profiles').create({ about: 5 as never }))
    expect(wrong).toMatchObject({
      ...{ status: 400, code: 'invalid', requestId: expect.any(String) },
      errors: [{ field: 'about' }, { field: 'name' }],
    })
    const visitor = clientOf(server.url)
    const denied = await problemOf(visitor.collection('profiles').create({ name: 'x' }))
    expect(denied.status).toBe(401)
    for (let at = 0; at < 5; at += 1) await client.request('POST', '/api/chat/a', { text: 'hi' })
    const hasty = await problemOf(client.request('POST', '/api/chat/a', { text: 'hi' }))
    expect(hasty.status).toBe(429)
    expect(hasty.retryAfterMs).toBeGreaterThan(0)
    await server.stop()
    const gone = await problemOf(client.collection('plays').list())
    expect(gone).toMatchObject({ status: 0, code: 'unreachable' })
  })
})

describe('subscribe()', () => {
  test.each(['websocket', 'http_stream'] as const)(
    'hears, says, asks who is there, and goes on from a position, over %s',
    async (transport) => {
      using folder = tempFolder()
      await using server = await runRadio(folder)
      // What does not open is passed by.
      const broken = { fallback: true, centrifuge: { ...quick, websocket: NoWebSocket } }
      const client = clientOf(server.url, {
        token: await tokenOf('ann'),
        ...(transport === 'websocket' ? {} : broken),
      })
      const opened: string[] = []
      client.centrifuge.on('connected', (context) => opened.push(context.transport))
      const texts: string[] = []
      let isThere = false
      const lobby = client.subscribe('chat:lobby', {
        message: ({ row }) => texts.push(row.text),
        subscribed: () => (isThere = true),
      })
      await until(() => isThere, 'it listens')
      expect(opened).toEqual([transport])
      await client.rpc('POST /api/chat/lobby', { text: 'one' })
      await until(() => texts.length === 1, 'one')
      expect(await lobby.presenceStats()).toEqual({ clients: 1, users: 1 })
      expect(await lobby.presence()).toMatchObject([{ user: 'ann' }])
      const kept = await lobby.history({ limit: 5, reverse: true })
      expect(kept.map(({ data }) => data.row.text)).toEqual(['one'])
      expect(await problemOf(client.rpc('POST /api/chat/lobby', { text: '' }))).toMatchObject({
        status: 400,
        code: 'refused',
      })
      const { position } = lobby
      expect(position?.offset).toBe(1)

      // Away, and back as another page that knows where it was.
      lobby.close()
      await client.rpc('POST /api/chat/lobby', { text: 'two' })
      const gaps: unknown[] = []
      const again = { message: ({ row }: { row: { text: string } }) => texts.push(row.text) }
      client.subscribe(
        'chat:lobby',
        { ...again, gap: (gap) => gaps.push(gap) },
        { since: position },
      )
      await until(() => texts.length === 2, 'two')
      expect([texts, gaps]).toEqual([['one', 'two'], []])
      client.close()
    },
  )

  test('a server that comes back without memory: the position is worth nothing, and it is told', async () => {
    using folder = tempFolder()
    const first = await runRadio(folder)
    const { port } = first
    // Back at once, whatever the server says.
    const atOnce = (_: number, run: () => void) => {
      const id = setImmediate(run)
      return () => clearImmediate(id)
    }
    const client = clientOf(first.url, { after: atOnce })
    const gaps: unknown[] = []
    let subscribed = 0
    client.subscribe('live-stream', {
      gap: (gap) => gaps.push(gap),
      subscribed: () => (subscribed += 1),
    })
    await until(() => subscribed === 1, 'it listens')
    await first.stop()
    await using second = await runRadio(folder, { PORT: String(port) })
    expect(second.port).toBe(port)
    await until(() => subscribed === 2, 'it listens again')
    expect(gaps).toEqual([{ reason: 'epoch', missed: undefined }])
    client.close()
  })

  test('a server that is stopped says when to come back, and the client does', async () => {
    using folder = tempFolder()
    const first = await runRadio(folder)
    const waits: number[] = []
    let comeBack = () => {}
    const after = (ms: number, run: () => void) => {
      waits.push(ms)
      comeBack = run
      return () => {}
    }
    const client = clientOf(first.url, { after })
    const titles: string[] = []
    client.subscribe('live-stream', { message: ({ row }) => titles.push(row.title) })
    await until(() => titles.length > 0, 'what is on is heard')
    await first.stop()
    await until(() => waits.length === 1, 'it was told')
    expect(waits[0]).toBeGreaterThanOrEqual(1_000)
    await using second = await runRadio(folder, { PORT: String(first.port) })
    expect([client.state, second.rooms.realtime.stats().connections]).toEqual(['connecting', 0])
    const before = titles.length
    comeBack()
    await until(() => titles.length > before, 'it hears again')
    client.close()
  })

  test('refused, it ends with the reason, and the others go on', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const client = clientOf(server.url)
    const ended: unknown[] = []
    client.subscribe('user:bob', { ended: (why) => ended.push(why) })
    let title = ''
    client.subscribe('live-stream', { message: ({ row }) => (title = row.title) })
    await until(() => ended.length === 1 && title !== '', 'both are answered')
    expect(ended).toMatchObject([{ code: 103 }])
    client.close()
  })
})

describe('/belfry.js', () => {
  test('is the client, small, with an ETag', async () => {
    using folder = tempFolder()
    await using server = await runRadio(folder)
    const response = await server.get('/belfry.js')
    expect(response.headers.get('content-type')).toBe('text/javascript; charset=utf-8')
    const script = await response.text()
    expect(script.length).toBeLessThan(120_000)
    const etag = response.headers.get('etag') ?? ''
    const same = await server.get('/belfry.js', { headers: { 'if-none-match': etag } })
    expect(same.status).toBe(304)

    await Bun.write(folder.file('belfry.js'), script)
    const { createClient: create } = (await import(folder.file('belfry.js'))) as {
      createClient: typeof createClient
    }
    const client = create<typeof radio>({ url: server.url })
    const { items } = await client.collection('plays').list({ limit: 1 })
    let title = ''
    client.subscribe('live-stream', { message: ({ row }) => (title = row.title) })
    await until(() => title === items[0]?.title, 'what is on is heard')
    client.close()
  })
})
