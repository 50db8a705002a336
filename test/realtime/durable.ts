/** What the tests of durable topics share. */
import type { TopicPlan } from '../../src/realtime/realtime.ts'
import type { Store } from '../../src/store/store.ts'
import type { RawClient, Subscribed } from './serve.ts'

export const room = {
  subscribe: 'public',
  publish: 'public',
  historySize: 100,
  persist: { size: 100, ttlMs: 3_600_000 },
} as const satisfies Partial<TopicPlan>

export async function subscribe(
  client: RawClient,
  command: Record<string, unknown> = {},
): Promise<Subscribed> {
  const reply = await client.call({ subscribe: { channel: 'chat:a', ...command } })
  return reply.subscribe as Subscribed
}

/** A store whose writes can be stopped, fail before they happen or after. */
export function fragile(store: Store) {
  const state = { next: (): 'pass' | 'refuse' | 'forget' => 'pass', writes: 0, held: false }
  return {
    state,
    identity: store.identity,
    read: store.read,
    async write(ops: Parameters<Store['write']>[0]) {
      state.writes += 1
      while (state.held) await new Promise((resolve) => setImmediate(resolve))
      const how = state.next()
      if (how === 'refuse') throw new Error('it did not happen')
      const changes = await store.write(ops)
      if (how === 'forget') throw new Error('it happened, and nobody knows')
      return changes
    },
  }
}
