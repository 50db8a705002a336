/** What every presence must do, said once and run on each: in memory for one node, over Redis for several. */
import { expect, test } from 'bun:test'
import type { Member, Presence } from '../../src/realtime/presence.ts'
import { until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'

export interface PresenceNode {
  readonly presence: Presence
  /** What observers of other nodes' members were told: `+ann`, `-ann`. */
  readonly told: string[]
}

export interface PresenceUnderTest extends AsyncDisposable {
  readonly nodes: readonly PresenceNode[]
}

export const memberOf = (client: string, user = client): Member => ({
  client,
  user,
  info: JSON.stringify({ client, user, conn_info: { text: 'é\n"😀\u2028' } }),
})

/** Starts and keeps what it is told of others. */
export function listening(presence: Presence): PresenceNode {
  const told: string[] = []
  presence.hear((topic, event, info) => {
    const { client } = JSON.parse(info) as Member
    told.push(`${event === 'join' ? '+' : '-'}${topic}/${client}`)
  })
  presence.start()
  return { presence, told }
}

export async function clientsOf({ presence }: PresenceNode, topic: string): Promise<string[]> {
  return (await presence.list(topic)).map(({ client }) => client).toSorted()
}

export function presenceContract(start: () => Promise<PresenceUnderTest>): void {
  const contract = (name: string, run: (nodes: readonly PresenceNode[]) => Promise<void>): void =>
    test(name, async () => {
      await using under = await start()
      await run(under.nodes)
    })
  const at = (nodes: readonly PresenceNode[], index: number): PresenceNode => {
    const node = nodes[index % nodes.length]
    if (!node) throw new Error('no node')
    return node
  }

  contract('nobody is where nobody came', async (nodes) => {
    expect(await at(nodes, 0).presence.list('a')).toEqual([])
    expect(await at(nodes, 0).presence.stats('a')).toEqual({ clients: 0, users: 0 })
  })

  contract(
    'members are listed whole, at every node; who has come is there at once',
    async (nodes) => {
      const ann = memberOf('c1', 'ann')
      at(nodes, 0).presence.add('room:{a} b', ann)
      expect(await at(nodes, 0).presence.list('room:{a} b')).toEqual([ann])
      at(nodes, 1).presence.add('room:{a} b', memberOf('c2', 'a "quoted"\nuser'))
      expect(await at(nodes, 1).presence.list('room:{a} b')).toHaveLength(2)
      for (const { presence } of nodes) {
        const members = await presence.list('room:{a} b')
        expect(members.toSorted((a, b) => a.client.localeCompare(b.client))).toEqual([
          ann,
          memberOf('c2', 'a "quoted"\nuser'),
        ])
      }
    },
  )

  contract(
    'two connections of a user are two clients and one user, visitors are one',
    async (nodes) => {
      for (const [index, user] of ['ann', 'ann', 'bob', '', ''].entries()) {
        at(nodes, index).presence.add('a', memberOf(`c${index}`, user))
        at(nodes, index).presence.add('other', memberOf(`c${index}`, user))
      }
      for (const { presence } of nodes) await presence.stats('a')
      for (const { presence } of nodes) {
        expect(await presence.stats('a')).toEqual({ clients: 5, users: 3 })
      }
      at(nodes, 1).presence.remove('a', 'c1')
      await at(nodes, 1).presence.stats('a')
      at(nodes, 2).presence.remove('a', 'c2')
      await at(nodes, 2).presence.stats('a')
      for (const { presence } of nodes) {
        expect(await presence.stats('a')).toEqual({ clients: 3, users: 2 })
        expect(await presence.stats('other')).toEqual({ clients: 5, users: 3 })
      }
    },
  )

  contract(
    'who comes again is there once, as it is now; who is not there cannot leave',
    async (nodes) => {
      const { presence } = at(nodes, 0)
      presence.add('a', memberOf('c1', 'bob'))
      presence.add('a', memberOf('c1', 'ann'))
      expect(await presence.list('a')).toEqual([memberOf('c1', 'ann')])
      presence.remove('a', 'c2')
      presence.remove('b', 'c1')
      expect(await presence.stats('a')).toEqual({ clients: 1, users: 1 })
      presence.remove('a', 'c1')
      presence.remove('a', 'c1')
      expect(await presence.stats('a')).toEqual({ clients: 0, users: 0 })
    },
  )

  contract('coming and going is told at every other node, in order', async (nodes) => {
    const { presence } = at(nodes, 0)
    const expected: string[] = []
    for (const client of ['c1', 'c2', 'c3']) {
      presence.add('a', memberOf(client))
      await presence.list('a')
      presence.remove('a', client)
      await presence.list('a')
      expected.push(`+a/${client}`, `-a/${client}`)
    }
    const others = nodes.slice(1)
    await until(() => others.every(({ told }) => told.length === expected.length), 'told')
    for (const { told } of others) expect(told).toEqual(expected)
    expect(at(nodes, 0).told).toEqual([])
  })

  contract(
    'thousands come and go in any order: who is left is listed everywhere',
    async (nodes) => {
      const random = createRandom(7)
      const here = new Set<string>()
      for (let step = 0; step < 3_000; step += 1) {
        const index = random.below(400)
        const client = `c${index}`
        // A connection is at one node for life.
        const { presence } = at(nodes, index)
        if (here.delete(client)) presence.remove('a', client)
        else {
          presence.add('a', memberOf(client))
          here.add(client)
        }
        if (random.below(20) === 0) await presence.stats('b')
      }
      for (const { presence } of nodes) await presence.stats('a')
      const left = [...here].toSorted()
      for (const node of nodes) {
        // What Redis had no time for is told again by the node's next look.
        const isListed = async () => Bun.deepEquals(await clientsOf(node, 'a'), left)
        await until(isListed, 'who is left is listed')
      }
    },
  )
}
