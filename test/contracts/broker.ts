/**
 * What every broker must do, said once and run on each: in memory with one node, over Redis with one, two and
 * three nodes that must look like one.
 */
import { describe, expect, test } from 'bun:test'
import { until } from '../harness.ts'
import { createRandom } from '../lib/random.ts'
import { historyOf, type Node } from '../realtime/node.ts'

export interface BrokerUnderTest extends AsyncDisposable {
  readonly nodes: readonly Node[]
}

/** Nodes of the broker declare these. */
export const declared = {
  plain: {},
  'room:{name}': { historySize: 100 },
  'few:{name}': { historySize: 3 },
  latest: { last: true },
} as const

const pick = <Item>(items: readonly Item[], index: number): Item => {
  const item = items[index % items.length]
  if (item === undefined) throw new Error('nothing to pick')
  return item
}

const upTo = (count: number, from = 1): number[] =>
  Array.from({ length: count }, (_, index) => from + index)

export function brokerContract(start: () => Promise<BrokerUnderTest>): void {
  const contract = (name: string, run: (nodes: readonly Node[]) => Promise<void>): void =>
    test(name, async () => {
      await using broker = await start()
      await run(broker.nodes)
    })

  contract(
    'a publication has the next offset of one epoch, and is heard at every node',
    async (nodes) => {
      const ears = await Promise.all(nodes.map((node) => node.listen('plain')))
      const first = await pick(nodes, 0).publish('plain', 'a')
      const second = await pick(nodes, 1).publish('plain', { b: 2 })
      expect(first.offset).toBe(1)
      expect(second).toEqual({ epoch: first.epoch, offset: 2 })
      await until(() => ears.every(({ told }) => told.length === 2), 'heard')
      for (const { start: begin, told } of ears) {
        expect(begin).toEqual({ epoch: first.epoch, offset: 0 })
        expect(told).toEqual([
          { offset: 1, data: 'a' },
          { offset: 2, data: { b: 2 } },
        ])
      }
    },
  )

  contract('whoever comes later begins where the topic is', async (nodes) => {
    for (const n of upTo(5)) await pick(nodes, n).publish('plain', n)
    const ears = await Promise.all(nodes.map((node) => node.listen('plain')))
    const { epoch } = await pick(nodes, 1).publish('plain', 6)
    await until(() => ears.every(({ told }) => told.length === 1), 'heard')
    for (const { start: begin, told } of ears) {
      // A node of a shared topic opens it where it is; in memory publishing opened it.
      expect(begin).toEqual({ epoch, offset: 5 })
      expect(told).toEqual([{ offset: 6, data: 6 }])
    }
  })

  contract('text of any kind comes through as it is', async (nodes) => {
    const ears = await Promise.all(nodes.map((node) => node.listen('room:é😀{x}')))
    const texts = ['', '\n\r\t "\\', 'é😀\u2028\u0000', '\ud800', '%7B*$-1\r\n', 'x'.repeat(60_000)]
    for (const [index, text] of texts.entries())
      await pick(nodes, index).publish('room:é😀{x}', text)
    await until(() => ears.every(({ told }) => told.length === texts.length), 'heard')
    for (const { told } of ears) expect(told.map(({ data }) => data)).toEqual(texts)
  })

  contract('a history keeps the newest so many, and is the same everywhere', async (nodes) => {
    const early = await pick(nodes, 0).open('few:a')
    const { epoch } = await pick(nodes, 0).publish('few:a', 1)
    for (const n of upTo(4, 2)) await pick(nodes, n).publish('few:a', n)
    const kept = upTo(3, 3).map((offset) => ({ offset, data: offset }))
    await until(() => early.offset === 5, 'the first node has all')
    for (const node of nodes) {
      const topic = await node.open('few:a')
      expect([topic.epoch, topic.offset]).toEqual([epoch, 5])
      expect(historyOf(topic)).toEqual(kept)
    }
  })

  contract(
    'the last publication of a topic without history is kept if it is declared',
    async (nodes) => {
      for (const n of upTo(3)) await pick(nodes, n).publish('latest', n)
      for (const node of nodes) {
        expect(historyOf(await node.open('latest'))).toEqual([{ offset: 3, data: 3 }])
      }
    },
  )

  contract(
    'from any position that is kept, any node gives exactly what was missed',
    async (nodes) => {
      const ear = await pick(nodes, 0).listen('room:a')
      for (const n of upTo(40)) await pick(nodes, n).publish('room:a', n)
      await until(() => ear.told.length === 40, 'heard')
      for (const offset of [0, 1, 17, 39, 40]) {
        for (const node of nodes) {
          const back = await node.listen('room:a', { epoch: ear.start.epoch, offset })
          expect(back.recovered).toBeTrue()
          expect(back.told.map((one) => one.offset)).toEqual(upTo(40 - offset, offset + 1))
          back.leave()
        }
      }
      for (const node of nodes) {
        const wrong = await node.listen('room:a', { epoch: 'another', offset: 40 })
        const ahead = await node.listen('room:a', { epoch: ear.start.epoch, offset: 41 })
        expect([wrong.recovered, ahead.recovered]).toEqual([false, false])
      }
    },
  )

  contract('what is forgotten is gone everywhere, and the topic counts on', async (nodes) => {
    const topics = await Promise.all(nodes.map((node) => node.open('room:b')))
    for (const n of upTo(5)) await pick(nodes, n).publish('room:b', n)
    const node = pick(nodes, 1)
    await until(() => topics.every(({ offset }) => offset === 5), 'heard')
    await node.broker.forget(topics[0] as never)
    await until(() => topics.every(({ history }) => history.length === 0), 'forgotten')
    expect((await node.publish('room:b', 6)).offset).toBe(6)
    await until(() => topics.every(({ history }) => history.length === 1), 'the next one is kept')
    expect(topics.every(({ epoch }) => epoch === topics[0]?.epoch)).toBeTrue()
  })

  describe.each([1, 2])('random publishers and listeners, seed %i', (seed) => {
    contract('everybody hears everything once, in one order', async (nodes) => {
      const random = createRandom(seed)
      const names = ['plain', 'room:a', 'room:b']
      const ears = new Map<string, Awaited<ReturnType<Node['listen']>>[]>()
      const sent: Promise<unknown>[] = []
      for (let n = 0; n < 600; n += 1) {
        const node = pick(nodes, random.below(nodes.length))
        const name = pick(names, random.below(names.length))
        if (random.below(20) === 0) {
          const ear = await node.listen(name)
          ears.set(name, [...(ears.get(name) ?? []), ear])
        }
        sent.push(node.publish(name, n))
        if (random.below(10) === 0) await Promise.all(sent.splice(0))
      }
      await Promise.all(sent)
      for (const name of names) {
        const { epoch, offset } = await pick(nodes, 0).publish(name, 'end')
        const listeners = ears.get(name) ?? []
        expect(listeners.length).toBeGreaterThan(2)
        await until(() => listeners.every(({ told }) => told.at(-1)?.offset === offset), 'the end')
        const whole = listeners.toSorted((a, b) => a.start.offset - b.start.offset)[0]
        for (const { start: begin, told, isLost } of listeners) {
          expect([begin.epoch, isLost]).toEqual([epoch, false])
          expect(told.map((one) => one.offset)).toEqual(
            upTo(offset - begin.offset, begin.offset + 1),
          )
          expect(told).toEqual(whole?.told.slice(-told.length) ?? [])
        }
      }
    })
  })
}
