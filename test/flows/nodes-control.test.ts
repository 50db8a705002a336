/** What the server API does to connections and asks about them: at whichever node it is called, wherever they are. */
import { describe, expect, test } from 'bun:test'
import { signToken } from '../../src/auth/auth.ts'
import { until } from '../harness.ts'
import { RawClient } from '../realtime/serve.ts'
import { testSecret, type TestServer } from '../server.ts'
import { isRun, json, pair } from './pair.ts'

interface Answered {
  readonly status: number
  readonly result: Readonly<Record<string, unknown>>
}

async function post(server: TestServer, method: string, body: unknown): Promise<Answered> {
  const init = { method: 'POST', headers: json, body: JSON.stringify(body) }
  const response = await server.get(`/api/${method}`, init)
  return { status: response.status, ...((await response.json()) as Omit<Answered, 'status'>) }
}

const tokenOf = (user: string): Promise<string> =>
  signToken(testSecret, { sub: user }, { nowMs: Date.now(), ttlMs: 3_600_000 })

async function connect(server: TestServer, user?: string): Promise<RawClient> {
  const url = `${server.url.replace('http', 'ws')}/connection/websocket`
  return await RawClient.connect(url, user === undefined ? undefined : await tokenOf(user))
}

/** Both have given a sign, and hear each other. */
async function knowing(servers: readonly TestServer[]): Promise<void> {
  const isWhole = async (server: TestServer): Promise<boolean> => {
    const { partial, nodes } = (await post(server, 'info', {})).result
    return partial === undefined && (nodes as unknown[]).length === servers.length
  }
  for (const server of servers) await until(() => isWhole(server), 'all nodes are told of', 20_000)
}

const unsubscribed = ({ replies }: RawClient) =>
  replies.flatMap(({ push }) => (push?.unsubscribe ? [push.unsubscribe.code] : []))

describe.skipIf(!isRun)('two servers, one database, one Redis', () => {
  test('a user is subscribed, unsubscribed, refreshed, disconnected at each', async () => {
    await using both = await pair()
    const [here, there] = both.servers
    await knowing(both.servers)
    const clients = [await connect(here, 'ann'), await connect(there, 'ann')]
    const bob = await connect(there, 'bob')
    expect(await post(here, 'subscribe', { user: 'ann', channel: 'rows' })).toEqual({
      status: 200,
      result: {},
    })
    await post(there, 'publish', { channel: 'rows', data: 1 })
    await until(() => clients.every(({ publications }) => publications.length === 1), 'both hear')
    await post(here, 'unsubscribe', { user: 'ann', channel: 'rows' })
    await until(() => clients.every((one) => unsubscribed(one)[0] === 2000), 'and hear no more')

    const expire_at = Math.ceil(Date.now() / 1000) + 60
    await post(there, 'refresh', { user: 'ann', expire_at })
    const isTold = ({ replies }: RawClient) => replies.some(({ push }) => push && 'refresh' in push)
    await until(() => clients.every(isTold), 'told of another end')

    const { result } = await post(here, 'connections', { user: 'ann' })
    const ids = Object.keys(result['connections'] as object)
    expect(ids).toHaveLength(2)
    const disconnect = { code: 4100, reason: 'come back' }
    await post(here, 'disconnect', { user: 'ann', whitelist: ids.slice(0, 1), disconnect })
    await until(() => clients.some(({ closed }) => closed !== undefined), 'all but one')
    await post(here, 'disconnect', { client: ids[0], disconnect })
    await until(() => clients.every(({ closed }) => closed !== undefined), 'this one too')
    expect(clients.map(({ closed }) => closed)).toEqual([disconnect, disconnect])
    expect([bob.closed, bob.publications]).toEqual([undefined, []])
    const unknown = await post(here, 'subscribe', { user: 'ann', channel: 'nothing' })
    expect(unknown.status).toBe(404)
    bob.close()
  })

  test('connections, topics and nodes are told of both', async () => {
    await using both = await pair()
    const [here, there] = both.servers
    await knowing(both.servers)
    const clients = [await connect(here, 'ann'), await connect(there, 'bob'), await connect(there)]
    for (const client of clients) await client.call({ subscribe: { channel: 'rows' } })
    await clients[1]?.call({ subscribe: { channel: 'said' } })
    for (const server of both.servers) {
      const { connections } = (await post(server, 'connections', {})).result
      const users = Object.values(connections as Record<string, { user: string }>)
      expect(users.map(({ user }) => user).toSorted()).toEqual(['', 'ann', 'bob'])
      const some = (await post(server, 'connections', { limit: 2 })).result
      expect(Object.keys(some['connections'] as object)).toHaveLength(2)
      expect((await post(server, 'channels', {})).result).toEqual({
        channels: { rows: { num_clients: 3 }, said: { num_clients: 1 } },
      })
      expect((await post(server, 'channels', { pattern: 's*' })).result).toEqual({
        channels: { said: { num_clients: 1 } },
      })
      const { nodes, partial } = (await post(server, 'info', {})).result as {
        nodes: { uid: string; num_clients: number; num_users: number; name: string }[]
        partial?: boolean
      }
      expect([nodes[0]?.uid, partial]).toEqual([server.rooms.realtime.node, undefined])
      expect(new Set(nodes.map(({ num_clients }) => num_clients))).toEqual(new Set([1, 2]))
      expect(nodes.map(({ num_users, name }) => [num_users, name])).toEqual([
        [1, 'test'],
        [1, 'test'],
      ])
    }
    for (const client of clients) client.close()
  })

  test('without Redis each answers for its own and says so; with it for both again', async () => {
    await using both = await pair()
    const [here, there] = both.servers
    await knowing(both.servers)
    const [ann, bob] = [await connect(here, 'ann'), await connect(there, 'bob')]
    await both.redis.kill()
    const isAlone = async () => (await post(here, 'info', {})).result['partial'] === true
    await until(isAlone, 'Redis is away')
    const own = await post(here, 'connections', {})
    expect([own.status, Object.keys(own.result['connections'] as object).length]).toEqual([200, 1])
    expect(await post(here, 'disconnect', { user: 'ann' })).toEqual({
      status: 200,
      result: { partial: true },
    })
    await until(() => ann.closed !== undefined, 'its own')
    expect(await post(here, 'disconnect', { user: 'bob' })).toEqual({
      status: 200,
      result: { partial: true },
    })
    await both.redis.restart()
    await knowing(both.servers)
    expect(bob.closed).toBeUndefined()
    expect((await post(here, 'disconnect', { user: 'bob' })).result).toEqual({})
    await until(() => bob.closed !== undefined, 'disconnected')
  })
})
