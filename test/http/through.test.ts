/** Topics whose publications go through the app's own API, in the name of whoever publishes. */
import { expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { Fault, topic, type Routes } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { codeOf, dataOf, hear, stockClient, subscribed, transports } from '../realtime/stock.ts'
import { runServer, testApiKey, testSecret } from '../server.ts'

/** A route that answers when the test lets it. */
function gated() {
  const waiting: (() => void)[] = []
  const routes: Routes = (server, { topics }) =>
    server.post('/api/say/:room', async ({ params, body, user }) => {
      const { text } = body as { text: string }
      if (text === 'wait') await new Promise<void>((resolve) => waiting.push(resolve))
      if (text === 'bug') throw new Error('a secret of the app')
      if (text === 'no') throw new Fault('conflict', 'not that')
      topics.publish(`room:${params.room}`, { room: params.room, by: user?.id ?? null, text })
    })
  const app = {
    topics: {
      'room:{room}': topic({
        subscribe: 'public',
        publish: 'public',
        through: 'POST /api/say/{room}',
      }),
    },
    routes,
  }
  return { app, waiting }
}

const tokenOf = (sub: string) =>
  signToken(testSecret, { sub }, { nowMs: Date.now(), ttlMs: 60_000 })

test.each([...transports])(
  'is a call by the publisher, answered when it is done, over %s',
  async (transport) => {
    using folder = tempFolder()
    const { app } = gated()
    await using server = await runServer({ app, folder })
    const client = stockClient(server, transport, { token: await tokenOf('ann') })
    const room = await subscribed(client, 'room:a/b?c')
    await room.subscription.publish({ text: 'hi' })
    expect(await codeOf(room.subscription.publish({ text: 'no' }))).toBe(409)
    expect(await codeOf(room.subscription.publish({ text: 'bug' }))).toBe(500)
    await until(() => room.publications.length > 0, 'it is heard')
    expect(dataOf(room)).toEqual([{ room: 'a/b?c', by: 'ann', text: 'hi' }])
    client.disconnect()
  },
)

test('what the server publishes goes out as it is', async () => {
  using folder = tempFolder()
  const { app } = gated()
  await using server = await runServer({ app, folder })
  const client = stockClient(server, 'websocket')
  const room = await subscribed(client, 'room:a')
  const sent = await server.get('/api/publish', {
    method: 'POST',
    headers: { 'x-api-key': testApiKey, 'content-type': 'application/json' },
    body: '{"channel":"room:a","data":"plain"}',
  })
  expect(sent.status).toBe(200)
  await until(() => room.publications.length === 1, 'it is heard')
  expect(dataOf(room)).toEqual(['plain'])
  client.disconnect()
})

test('a connection has so many under way, with its calls; the others are refused, not kept', async () => {
  using folder = tempFolder()
  const { app, waiting } = gated()
  await using server = await runServer({ app, folder })
  const client = stockClient(server, 'websocket')
  const room = await subscribed(client, 'room:a')
  const codes: (number | undefined)[] = []
  for (let at = 0; at < 20; at += 1) {
    void codeOf(room.subscription.publish({ text: 'wait' })).then((code) => codes.push(code))
  }
  await until(() => codes.length === 4 && waiting.length === 16, 'four are refused')
  expect(codes).toEqual([111, 111, 111, 111])
  // Others go on, and so does this one when its own are done.
  const other = hear(client, 'room:b')
  await until(() => other.subscribed.length === 1, 'it listens')
  for (const go of waiting) go()
  await until(() => codes.length === 20, 'all are answered')
  await room.subscription.publish({ text: 'more' })
  await until(() => room.publications.length === 17, 'all are heard')
  client.disconnect()
})
