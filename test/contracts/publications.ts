/** What every shape of a database must do for durable topics; run beside the store's own contract. */
import { expect, test } from 'bun:test'
import { createPublications, tellingKey, type StoredPublication } from '../../src/store/store.ts'
import type { Shape } from './store.ts'

/** What JSON text may hold, and a store might garble. */
const hard = JSON.stringify({
  text: 'a "b" \\ \n \u0000 \ud800 é 🔔 %s ? :a',
  n: 1e300,
  deep: ['[]'],
})

const from = (offset: number, count: number, atMs = 1_000): StoredPublication[] =>
  Array.from({ length: count }, (_, n) => ({ offset: offset + n, atMs: atMs + n, data: hard }))

const open = { sinceMs: 0, untilMs: 1e15, after: undefined, limit: 100, reverse: false }

export function publicationsContract(start: () => Promise<Shape>): void {
  test('publications: appended from where the topic is, in one commit or not at all', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const kept = createPublications(store, { isShared: false })
    const changes: unknown[] = []
    store.onChange((change) => void changes.push(change))
    expect(await kept.load('a', 10, 0)).toEqual({ offset: 0, atMs: 0, seq: 0, publications: [] })
    const both = [
      { topic: 'a', publications: from(1, 3) },
      { topic: 'b', publications: from(1, 1) },
    ]
    expect(await kept.append(both, [])).toBe('appended')
    expect(await kept.append(both, [])).toBe('moved')
    const ahead = [
      { topic: 'c', publications: from(1, 1) },
      { topic: 'a', publications: from(5, 1) },
    ]
    expect(await kept.append(ahead, [])).toBe('moved')
    expect(await kept.load('c', 10, 0)).toMatchObject({ offset: 0 })
    expect(await kept.append([{ topic: 'a', publications: from(4, 1, 2_000) }], [])).toBe(
      'appended',
    )

    expect(await kept.load('a', 10, 0)).toEqual({
      offset: 4,
      atMs: 2_000,
      seq: 0,
      publications: [...from(1, 3), ...from(4, 1, 2_000)],
    })
    expect((await kept.load('a', 2, 0)).publications).toEqual([
      ...from(3, 1, 1_002),
      ...from(4, 1, 2_000),
    ])
    expect((await kept.load('a', 10, 1_002)).publications).toEqual(from(4, 1, 2_000))
    expect(await kept.after('a', 3)).toEqual({ publications: from(4, 1, 2_000), seq: 0 })
    expect(changes).toEqual([])
    expect(store.stats().seq).toBe(0)
  })

  test('publications: of a time, forwards and back; pruned by offset and age', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const kept = createPublications(store, { isShared: false })
    await kept.append(
      [
        { topic: 'a', publications: from(1, 50) },
        { topic: 'b', publications: from(1, 5) },
      ],
      [],
    )
    const range = async (asked: Partial<Omit<typeof open, 'after'>> & { after?: number }) =>
      (await kept.range('a', { ...open, ...asked })).map(({ offset }) => offset)
    expect(await range({ sinceMs: 1_010, untilMs: 1_013 })).toEqual([11, 12, 13])
    expect(await range({ sinceMs: 1_010, untilMs: 1_013, reverse: true })).toEqual([13, 12, 11])
    expect(await range({ after: 11, limit: 2 })).toEqual([12, 13])
    expect(await range({ after: 11, limit: 2, reverse: true })).toEqual([10, 9])

    const next = [{ topic: 'a', publications: from(51, 1, 2_000) }]
    expect(await kept.append(next, [{ topic: 'a', upTo: 20, beforeMs: 0 }])).toBe('appended')
    expect(await range({ limit: 1 })).toEqual([21])
    await kept.prune([{ topic: 'a', upTo: 0, beforeMs: 1_030 }])
    expect(await range({ limit: 1 })).toEqual([31])
    expect(await kept.names('', 10)).toEqual([
      { topic: 'a', oldestMs: 1_030 },
      { topic: 'b', oldestMs: 1_000 },
    ])
    await kept.prune([
      { topic: 'a', upTo: 100, beforeMs: 0 },
      { topic: 'b', upTo: 0, beforeMs: 5_000 },
    ])
    expect(await kept.names('', 1)).toEqual([{ topic: 'a', oldestMs: undefined }])
    expect(await kept.names('a', 1)).toEqual([{ topic: 'b', oldestMs: undefined }])
    expect(await kept.load('a', 10, 0)).toEqual({
      ...{ offset: 51, atMs: 2_000, seq: 0 },
      publications: [],
    })
    // The offset is the topic's, though nothing is left that has it.
    expect(await kept.append([{ topic: 'a', publications: from(51, 1) }], [])).toBe('moved')
    expect(await kept.append([{ topic: 'a', publications: from(52, 1, 2_001) }], [])).toBe(
      'appended',
    )
  })

  test('publications: an answer is bounded in bytes, from the end that counts', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const kept = createPublications(store, { isShared: false })
    const large = JSON.stringify('é'.repeat(300_000))
    for (let offset = 1; offset <= 10; offset++) {
      await kept.append([{ topic: 'a', publications: [{ offset, atMs: offset, data: large }] }], [])
    }
    const offsets = (list: readonly StoredPublication[]) => list.map(({ offset }) => offset)
    expect(offsets((await kept.load('a', 100, 0)).publications)).toEqual([5, 6, 7, 8, 9, 10])
    expect(offsets((await kept.after('a', 1)).publications)).toEqual([2, 3, 4, 5, 6, 7, 8])
    expect(offsets(await kept.range('a', { ...open, reverse: true }))).toEqual([
      10, 9, 8, 7, 6, 5, 4,
    ])
  })

  test('publications: a change is told once on a topic, by each who tells it', async () => {
    await using shape = await start()
    await using store = await shape.open()
    const kept = createPublications(store, { isShared: true })
    const telling = (seq: number, by = 'rows') => ({ seq, by })
    const add = async (topic: string, offset: number, ...changes: { seq: number; by: string }[]) =>
      await kept.append([{ topic, publications: from(offset, changes.length), changes }], [])
    expect(await add('a', 1, telling(7), telling(10), telling(7, 'others'))).toBe('appended')
    expect(await add('a', 4, telling(11), telling(10))).toBe('moved')
    expect(await add('b', 1, telling(10))).toBe('appended')
    expect(await kept.load('a', 10, 0)).toMatchObject({ offset: 3, seq: 10 })
    expect(await kept.after('a', 2)).toMatchObject({ publications: from(3, 1, 1_002), seq: 10 })
    const asked = [telling(7), telling(8), telling(10), telling(10, 'others')]
    const told = await kept.told('a', asked)
    expect(asked.map((one) => told.has(tellingKey(one)))).toEqual([true, false, true, false])
    const next = { topic: 'a', publications: from(4, 1), changes: [telling(12)], forgetChanges: 10 }
    expect(await kept.append([next], [])).toBe('appended')
    const after = await kept.told('a', asked)
    expect(asked.map((one) => after.has(tellingKey(one)))).toEqual([false, false, true, false])
    expect(await kept.load('a', 10, 0)).toMatchObject({ offset: 4, seq: 12 })
  })
}
