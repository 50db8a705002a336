import { expect, test } from 'bun:test'
import { createClient } from '@libsql/client/http'
import { Redis } from 'ioredis'
import { tempFolder, until } from './harness.ts'
import { freePort, requireService, startRedis, startSqld } from './services.ts'

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

test.skipIf(!requireService('sqld'))(
  'startSqld() restarted has what it had, paused it answers nobody, and its replica follows',
  async () => {
    using folder = tempFolder()
    await using primary = await startSqld({
      folder: folder.file('primary'),
      grpcPort: await freePort(),
    })
    await using replica = await startSqld({ primaryGrpcUrl: primary.grpcUrl })
    const [toPrimary, toReplica] = [primary, replica].map(({ url }) => createClient({ url }))
    if (!toPrimary || !toReplica) throw new Error('two clients')
    await toPrimary.executeMultiple('create table t (n integer); insert into t values (7)')
    await primary.restart()
    const rows = async (client: typeof toPrimary) => {
      const result = await client.execute('select n from t')
      return result.rows.map((row) => row['n'])
    }
    expect(await rows(toPrimary)).toEqual([7])
    await until(async () => {
      const seen = await rows(toReplica).catch(() => [])
      return seen[0] === 7
    }, 'the replica has it')

    primary.pause()
    let isAnswered = false
    const late = rows(toPrimary).then((seen) => {
      isAnswered = true
      return seen
    })
    await Bun.sleep(100)
    expect(isAnswered).toBe(false)
    primary.resume()
    expect(await late).toEqual([7])
    for (const client of [toPrimary, toReplica]) client.close()
  },
)
