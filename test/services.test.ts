import { expect, test } from 'bun:test'
import { createClient } from '@libsql/client/http'
import { Redis } from 'ioredis'
import { requireService, startRedis, startSqld } from './services.ts'

test.skipIf(!requireService('redis-server'))('startRedis() answers a ping', async () => {
  await using server = await startRedis()
  const redis = new Redis(server.url)
  expect(await redis.ping()).toBe('PONG')
  redis.disconnect()
})

test.skipIf(!requireService('redis-server'))('startRedis() comes back on its port', async () => {
  await using first = await startRedis()
  await first.kill()
  await using second = await startRedis({ port: first.port })
  expect(second.url).toBe(first.url)
})

test.skipIf(!requireService('sqld'))('startSqld() answers a query', async () => {
  await using server = await startSqld()
  const client = createClient({ url: server.url })
  const { rows } = await client.execute('select 1 as one')
  expect(rows[0]?.['one']).toBe(1)
  client.close()
})
