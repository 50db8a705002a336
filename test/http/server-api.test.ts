/** Where the server API stands among the app's own paths. */
import { expect, test } from 'bun:test'
import { integer, sqliteTable, text } from 'drizzle-orm/sqlite-core'
import { collection, topic } from '../../src/kit.ts'
import { tempFolder } from '../harness.ts'
import { runServer, testApiKey } from '../server.ts'

test('a collection keeps its path from a method of the same name, which has another', async () => {
  using folder = tempFolder()
  const channels = sqliteTable('channels', {
    id: integer().primaryKey(),
    title: text().notNull(),
  })
  await using server = await runServer({
    folder,
    app: {
      collections: { channels: collection(channels, { read: 'public', create: 'public' }) },
      topics: { news: topic({ subscribe: 'public' }) },
    },
  })
  const post = async (path: string, body: unknown) => {
    const headers = { 'content-type': 'application/json', 'x-api-key': testApiKey }
    const init = { method: 'POST', headers, body: JSON.stringify(body) }
    const response = await server.get(path, init)
    return { status: response.status, body: (await response.json()) as unknown }
  }
  expect(await post('/api/channels', { title: 'a' })).toMatchObject({ status: 201 })
  expect(await post('/api/server/channels', {})).toEqual({
    status: 200,
    body: { result: { channels: {} } },
  })
  expect(await post('/api/connections', {})).toMatchObject({ status: 200 })
  expect(await post('/api/info', {})).toMatchObject({
    body: { result: { nodes: [{ name: 'test' }] } },
  })
  const batch = { commands: [{ publish: { channel: 'news', data: 1 } }] }
  expect(await post('/api/batch', batch)).toMatchObject({
    status: 200,
    body: { replies: [{ publish: { offset: 1 } }] },
  })
})
