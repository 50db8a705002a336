/**
 * For every subscriber, whatever happens: offsets are contiguous within an epoch, or "not recovered"
 * was said. Random publishers, disconnects, reconnects and topics; the seed is in the name of the test.
 */
import { expect, test } from 'bun:test'
import { RawClient, serve, until, type TestServer } from './serve.ts'

/** mulberry32: small, seeded, good enough to shuffle with. */
function createRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

const names = ['a', 'b', 'c']

class Subscriber {
  client: RawClient | undefined
  readonly positions = new Map<string, { offset: number; epoch: string }>()
  recovered = 0
  notRecovered = 0
  heard = 0

  async connect(server: TestServer): Promise<void> {
    const client = await RawClient.connect(server.wsUrl)
    this.client = client
    const lines = names.map((name, index) => {
      const known = this.positions.get(name)
      const since = known ? { recover: true, ...known } : {}
      return JSON.stringify({ id: 100 + index, subscribe: { channel: name, ...since } })
    })
    client.send(lines.join('\n'))
  }

  /** Reads what came in order, as a client does, and checks each offset against the one before. */
  async disconnect(): Promise<void> {
    const { client } = this
    if (!client) return
    this.client = undefined
    client.close()
    await until(() => client.closed !== undefined, 'closed')
    for (const { id, subscribe, push } of client.replies) {
      const name = names[(id ?? 0) - 100]
      if (subscribe && name) {
        const known = this.positions.get(name)
        if (known) expect(subscribe.was_recovering).toBeTrue()
        if (subscribe.recovered) {
          this.recovered += 1
          expect({ offset: subscribe.offset, epoch: subscribe.epoch }).toEqual(
            known ?? { offset: -1, epoch: '' },
          )
        } else if (known) this.notRecovered += 1
        const { offset, epoch } = subscribe
        this.positions.set(name, { offset, epoch })
        if (!subscribe.recovered) expect(subscribe.publications).toBeUndefined()
        for (const publication of subscribe.publications ?? []) this.#hear(name, publication.offset)
      } else if (push?.pub) this.#hear(push.channel, push.pub.offset)
    }
  }

  #hear(name: string, offset: number): void {
    const known = this.positions.get(name)
    if (!known) throw new Error(`${name} was heard before it was subscribed to`)
    expect(offset).toBe(known.offset + 1)
    known.offset = offset
    this.heard += 1
  }
}

test.each([1, 2, 3, 4])('no gap and no duplicate, or a word about it (seed %i)', async (seed) => {
  const random = createRandom(seed)
  await using server = serve(
    Object.fromEntries(
      names.map((name, n) => [name, { subscribe: 'public', historySize: 4 + 12 * n }]),
    ),
    // Of twelve subscribers: four slices each in a turn of its own, joined and left in between.
    { limits: { shardSize: 3, turnMs: 0 } },
  )
  const subscribers = Array.from({ length: 12 }, () => new Subscriber())
  for (let step = 0; step < 400; step += 1) {
    const subscriber = subscribers[Math.floor(random() * subscribers.length)]
    const count = Math.floor(random() * 4)
    const publish = () => {
      for (let n = 0; n < count; n += 1) {
        server.realtime.publish(names[Math.floor(random() * names.length)] ?? 'a', { step, n })
      }
    }
    if (random() < 0.25 && subscriber) {
      const turn = subscriber.client ? subscriber.disconnect() : subscriber.connect(server)
      publish()
      await turn
    } else publish()
    if (random() < 0.3) await new Promise((resolve) => setImmediate(resolve))
  }
  for (const subscriber of subscribers) await subscriber.disconnect()
  const sum = (of: (subscriber: Subscriber) => number) =>
    subscribers.reduce((total, subscriber) => total + of(subscriber), 0)
  // Both ways were taken, or the run has shown nothing.
  expect(sum(({ recovered }) => recovered)).toBeGreaterThan(10)
  expect(sum(({ notRecovered }) => notRecovered)).toBeGreaterThan(10)
  expect(sum(({ heard }) => heard)).toBeGreaterThan(100)
})
