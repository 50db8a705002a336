/** What every presence must do, wherever it is kept: here, or where several nodes share it. */
import { expect, test } from 'bun:test'
import type { Member, Presence } from '../../src/realtime/presence.ts'
import { until } from '../harness.ts'

export function presenceContract(create: () => Presence | Promise<Presence>): void {
  const member = (client: string, user = ''): Member => ({
    client,
    user,
    info: JSON.stringify({ client, user }),
  })
  /** What is shared takes a moment. */
  const counted = (presence: Presence, topic: string, clients: number, users: number) =>
    until(async () => {
      const stats = await presence.stats(topic)
      return stats.clients === clients && stats.users === users
    }, `${clients} clients, ${users} users in ${topic}`)

  test('members are listed and counted, visitors as one user', async () => {
    const presence = await create()
    for (const [client, user] of [
      ['a', 'ann'],
      ['b', 'ann'],
      ['c', 'bob'],
      ['d', ''],
      ['e', ''],
    ]) {
      presence.add('t', member(client ?? '', user))
    }
    presence.add('other', member('a', 'ann'))
    await counted(presence, 't', 5, 3)
    const listed = [...(await presence.list('t'))].sort((a, b) => a.client.localeCompare(b.client))
    expect(listed[0]).toEqual(member('a', 'ann'))
    expect(listed.map(({ client }) => client)).toEqual(['a', 'b', 'c', 'd', 'e'])
    await counted(presence, 'other', 1, 1)
    for (const client of ['a', 'b', 'c', 'd', 'e']) presence.remove('t', client)
    presence.remove('other', 'a')
    await counted(presence, 't', 0, 0)
  })

  test('a user is gone with the last connection, and once only', async () => {
    const presence = await create()
    presence.add('t', member('a', 'ann'))
    presence.add('t', member('b', 'ann'))
    presence.remove('t', 'a')
    presence.remove('t', 'a')
    presence.remove('t', 'never')
    presence.remove('nowhere', 'a')
    await counted(presence, 't', 1, 1)
    presence.remove('t', 'b')
    await counted(presence, 't', 0, 0)
    expect(await presence.list('t')).toEqual([])
    expect(await presence.list('nowhere')).toEqual([])
  })

  test('a connection that joins again is there once, as it is now', async () => {
    const presence = await create()
    presence.add('t', member('a', 'ann'))
    presence.add('t', { client: 'a', user: 'bob', info: '{"seat":2}' })
    await counted(presence, 't', 1, 1)
    expect(await presence.list('t')).toEqual([{ client: 'a', user: 'bob', info: '{"seat":2}' }])
    presence.remove('t', 'a')
    await counted(presence, 't', 0, 0)
  })
}
