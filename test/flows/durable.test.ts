/** A durable topic through every door of the whole server, over a restart of it. */
import { expect, test } from 'bun:test'
import { topic } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { spawnBelfry } from '../process.ts'
import { RawClient, type Subscribed } from '../realtime/serve.ts'
import { runServer, testApiKey, type TestServerOptions } from '../server.ts'

const socketOf = (url: string) => `${url.replace('http', 'ws')}/connection/websocket`

test('what was acknowledged is there after a restart, and a subscriber gets what it missed', async () => {
  using folder = tempFolder()
  const options: TestServerOptions = {
    folder,
    app: {
      topics: {
        'chat:{room}': topic({
          subscribe: 'public',
          publish: 'public',
          history: { size: 100, ttl: '1h' },
          persist: { ttl: '30d' },
        }),
      },
      routes: (server, { topics }) =>
        server.post('/api/say', () => {
          topics.publish('chat:a', 'by a route')
          return {}
        }),
    },
  }
  const headers = { 'x-api-key': testApiKey, 'content-type': 'application/json' }
  const post = (data: unknown) => ({
    method: 'POST',
    headers,
    body: JSON.stringify({ channel: 'chat:a', data }),
  })
  let position: { epoch: string; offset: number }
  {
    await using server = await runServer(options)
    const client = await RawClient.connect(socketOf(server.url))
    await client.call({ publish: { channel: 'chat:a', data: 'by a client' } })
    const answer = await server.get('/api/publish', post('by the server API'))
    position = ((await answer.json()) as { result: typeof position }).result
    expect(position.offset).toBe(2)
    // Not answered when it is committed: the stop waits for it.
    await server.get('/api/say', { method: 'POST', headers, body: '{}' })
    client.close()
  }
  await using server = await runServer(options)
  // By the server, before anybody else has brought the topic alive.
  const guest = await RawClient.open(socketOf(server.url))
  const { client: id } = (await guest.call({ connect: {} }))['connect'] as { client: string }
  const body = JSON.stringify({ client: id, channel: 'chat:a' })
  await server.get('/api/subscribe', { method: 'POST', headers, body })
  await guest.call({ ping: {} })
  const { push } = guest.replies.find((one) => one.push) ?? {}
  expect(push).toMatchObject({ channel: 'chat:a', subscribe: { offset: 3 } })
  guest.close()
  const client = await RawClient.connect(socketOf(server.url))
  const subscribe = { channel: 'chat:a', recover: true, ...position }
  const reply = await client.call({ subscribe })
  expect(reply.subscribe).toMatchObject({
    recovered: true,
    publications: [{ data: 'by a route', offset: 3 }],
  })
  const replay = await server.get('/api/topics/chat:a/history?since=0')
  expect(await replay.json()).toMatchObject({
    offset: 3,
    epoch: position.epoch,
    publications: [{ data: 'by a client' }, { data: 'by the server API' }, { data: 'by a route' }],
  })
  expect(server.rooms.store.stats().seq).toBe(0)
  client.close()
})

const appFile = `
import { app, topic } from 'belfry'
export default app({ name: 'chat', topics: { chat: topic({
  subscribe: 'public', publish: 'public', history: { size: 10000, ttl: '1h' }, persist: true,
}) } })
`

test('kill -9 while publications are committed: what was acknowledged or heard is there, at its offset', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), appFile)
  const acknowledged = new Map<number, number>()
  const heard: { offset: number; data: number }[] = []
  let epoch: string | undefined
  let said = 0
  for (let life = 0; life < 3; life += 1) {
    const env = { API_KEY: testApiKey }
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path, env })
    const client = await RawClient.connect(socketOf(server.url))
    const position = epoch === undefined ? {} : { recover: true, epoch, offset: heard.length }
    const reply = await client.call({ subscribe: { channel: 'chat', ...position } })
    const subscribed = reply.subscribe as Subscribed
    expect(subscribed).toMatchObject(
      epoch === undefined ? { offset: 0 } : { recovered: true, epoch },
    )
    ;({ epoch } = subscribed)
    heard.push(...((subscribed.publications ?? []) as typeof heard))
    const enough = acknowledged.size + 100
    const publish = async (): Promise<void> => {
      for (;;) {
        const data = (said += 1)
        const response = await fetch(`${server.url}/api/publish`, {
          method: 'POST',
          headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
          body: JSON.stringify({ channel: 'chat', data }),
        })
        const { result } = (await response.json()) as { result: { offset: number } }
        acknowledged.set(data, result.offset)
        if (acknowledged.size === enough) server.kill('SIGKILL')
      }
    }
    await Promise.allSettled(Array.from({ length: 20 }, publish))
    await server.exited
    heard.push(...(client.publications as unknown as typeof heard))
  }
  await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
  const client = await RawClient.connect(socketOf(server.url))
  const subscribe = { channel: 'chat', recover: true, epoch, offset: heard.length }
  const reply = await client.call({ subscribe })
  expect(reply.subscribe).toMatchObject({ recovered: true })
  heard.push(...(((reply.subscribe as Subscribed).publications ?? []) as typeof heard))
  client.close()

  expect(heard.map(({ offset }) => offset)).toEqual(heard.map((_, index) => index + 1))
  expect(new Set(heard.map(({ data }) => data)).size).toBe(heard.length)
  for (const [data, offset] of acknowledged) {
    expect(heard[offset - 1]?.data).toBe(data)
  }
  expect(acknowledged.size).toBeGreaterThanOrEqual(300)
})
