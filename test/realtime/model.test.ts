/**
 * For every subscriber, whatever happens: offsets are contiguous within an epoch, or "not recovered"
 * was said. Random publishers, disconnects, reconnects and topics; the seed is in the name of the test.
 */
import { expect, test } from 'bun:test'
import { createRandom } from '../lib/random.ts'
import { RawClient, serve, until, type Subscribed, type TestServer } from './serve.ts'

const names = ['a', 'b', 'c']

interface Position {
  offset: number
  epoch: string
}

class Subscriber {
  client: RawClient | undefined
  readonly positions = new Map<string, Position>()
  recovered = 0
  notRecovered = 0
  again = 0
  heard = 0
  /** Replies that were read. */
  #at = 0
  /** Topics it asked to hear again: until the answer, nothing that comes is of the new subscription. */
  readonly #asked = new Set<string>()

  async connect(server: TestServer): Promise<void> {
    const client = await RawClient.connect(server.wsUrl)
    this.client = client
    this.#at = 0
    client.send(names.map((name) => this.#subscribe(name)).join('\n'))
  }

  /** Leaves a topic and joins it anew in one frame, whatever is under way to it. */
  resubscribe(name: string): void {
    this.read()
    if (!this.client || this.#asked.has(name) || !this.positions.has(name)) return
    this.again += 1
    const leave = JSON.stringify({ id: 50, unsubscribe: { channel: name } })
    this.client.send(`${leave}\n${this.#subscribe(name)}`)
  }

  #subscribe(name: string): string {
    this.#asked.add(name)
    const known = this.positions.get(name)
    const since = known ? { recover: true, ...known } : {}
    return JSON.stringify({ id: 100 + names.indexOf(name), subscribe: { channel: name, ...since } })
  }

  async disconnect(): Promise<void> {
    const { client } = this
    if (!client) return
    client.close()
    await until(() => client.closed !== undefined, 'closed')
    this.read()
    this.#asked.clear()
    this.client = undefined
  }

  /** What came, in order, as a client does, and checks each offset against the one before. */
  read(): void {
    const replies = this.client?.replies ?? []
    for (; this.#at < replies.length; this.#at += 1) {
      const { id, subscribe, push } = replies[this.#at] ?? {}
      const name = names[(id ?? 0) - 100]
      if (subscribe && name) this.#subscribed(name, subscribe)
      else if (push?.pub && !this.#asked.has(push.channel))
        this.#hear(push.channel, push.pub.offset)
    }
  }

  #subscribed(name: string, { offset, epoch, recovered, ...rest }: Subscribed): void {
    const known = this.positions.get(name)
    this.#asked.delete(name)
    if (known) expect(rest.was_recovering).toBeTrue()
    if (recovered) {
      this.recovered += 1
      expect({ offset, epoch }).toEqual(known ?? { offset: -1, epoch: '' })
    } else {
      if (known) this.notRecovered += 1
      expect(rest.publications).toBeUndefined()
    }
    this.positions.set(name, { offset, epoch })
    for (const publication of rest.publications ?? []) this.#hear(name, publication.offset)
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
    const subscriber = random.pick(subscribers)
    const count = random.below(4)
    const publish = () => {
      for (let n = 0; n < count; n += 1) {
        server.realtime.publish(random.pick(names), { step, n })
      }
    }
    const dice = random.next()
    if (dice < 0.25) {
      const turn = subscriber.client ? subscriber.disconnect() : subscriber.connect(server)
      publish()
      await turn
    } else {
      publish()
      if (dice < 0.6) subscriber.resubscribe(random.pick(names))
    }
    if (random.next() < 0.3) await new Promise((resolve) => setImmediate(resolve))
  }
  for (const subscriber of subscribers) await subscriber.disconnect()
  const sum = (of: (subscriber: Subscriber) => number) =>
    subscribers.reduce((total, subscriber) => total + of(subscriber), 0)
  // Both ways were taken, or the run has shown nothing.
  expect(sum(({ recovered }) => recovered)).toBeGreaterThan(10)
  expect(sum(({ notRecovered }) => notRecovered)).toBeGreaterThan(10)
  expect(sum(({ again }) => again)).toBeGreaterThan(10)
  expect(sum(({ heard }) => heard)).toBeGreaterThan(100)
})
