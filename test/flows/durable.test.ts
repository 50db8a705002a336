/** A durable topic through every door of the whole server, over a restart of it. */
import { expect, test } from 'bun:test'
import { topic } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { RawClient } from '../realtime/serve.ts'
import { runServer, testApiKey, type TestServerOptions } from '../server.ts'

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
  const socketOf = (url: string) => `${url.replace('http', 'ws')}/connection/websocket`
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
