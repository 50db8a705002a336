/** The checker itself: a history in which every promise was kept, and then each broken once. */
import { expect, test } from 'bun:test'
import { check, type Entry, type Seen } from './consistency-check.ts'

const post = (id: number, mark: string) => ({ id, groupId: 1, slug: `s${id}`, mark })
const log: readonly Entry[] = [
  { seq: 1, table: 'posts', op: 'create', row: post(1, 'a') },
  { seq: 2, table: 'posts', op: 'update', row: post(1, 'b') },
  // One write.
  { seq: 3, table: 'posts', op: 'update', row: post(1, 'c') },
  { seq: 4, table: 'posts', op: 'create', row: post(2, 'c') },
  { seq: 5, table: 'posts', op: 'remove', row: post(1, 'c') },
]
const written = [
  { seqs: [1], sentMs: 90, ackedMs: 100 },
  { seqs: [2], sentMs: 190, ackedMs: 200 },
  { seqs: [3, 4], sentMs: 290, ackedMs: 300 },
  { seqs: [5], sentMs: 390, ackedMs: 400 },
]
const sightings = written.map(({ seqs, ackedMs }) => ({ seq: seqs.at(-1) ?? 0, ms: ackedMs }))

/** By a node that knows nothing yet. */
const seen = (fromMs: number, view: string, text: string, more: Partial<Seen> = {}): Seen => ({
  ...{ node: 'n', state: 'hit', view, text, fromMs, toMs: fromMs },
  ...{ acked: 0, applied: 0, ...more },
})
const rules = (...all: readonly Seen[]) =>
  check({ log, written, seen: all, sightings, boundMs: 50 }).violations.map(({ rule }) => rule)

const [a, b, c, c2] = ['1,1,s1,a', '1,1,s1,b', '1,1,s1,c', '2,1,s2,c']

test('is silent about what was current, or lately was', () => {
  expect(
    rules(
      seen(110, 'post 1', a, { acked: 1, applied: 1 }),
      seen(110, 'post 2', 'absent'),
      seen(210, 'post 1', a, { acked: 1, applied: 1 }),
      seen(260, 'post 1', b, { acked: 2, applied: 2 }),
      // Sent, and not answered yet.
      seen(192, 'post 1', b),
      seen(360, 'posts all', `${c};${c2}`, { acked: 4, applied: 4 }),
      seen(460, 'in 1', c2, { acked: 5, applied: 5 }),
      seen(460, 'slug s1', 'absent', { acked: 5, applied: 5 }),
      seen(460, 'in 7', '', { applied: 5 }),
    ),
  ).toEqual([])
})

test('a node that wrote shows what was before', () => {
  expect(rules(seen(201, 'post 1', a, { acked: 2, applied: 2 }))).toEqual(['own'])
})

test('an entry outlives an invalidation that its node has applied', () => {
  expect(rules(seen(201, 'post 1', a, { acked: 1, applied: 2 }))).toEqual(['applied'])
  expect(rules(seen(401, 'in 1', `${c};${c2}`, { applied: 5 }))).toEqual(['applied'])
})

test('a value is older than the bound', () => {
  expect(rules(seen(260, 'post 1', a))).toEqual(['bound'])
  expect(rules(seen(240, 'post 1', a))).toEqual([])
})

test('half of a write, or what never was', () => {
  expect(rules(seen(310, 'posts all', c))).toEqual(['unknown'])
  expect(rules(seen(310, 'post 1', '1,1,s1,z'))).toEqual(['unknown'])
})

test('what is there again later does not excuse what was shown before it was', () => {
  expect(rules(seen(240, 'post 1', 'absent', { applied: 1 }))).toEqual(['applied'])
  expect(rules(seen(360, 'post 1', c, { toMs: 500 }))).toEqual([])
})

test('what ends a value is the invalidation after the change, by any of its tags', () => {
  const group = (seq: number, mark: string): Entry => ({
    ...{ seq, table: 'groups', op: 'update', row: { id: 3, mark } },
  })
  const invalidation = (seq: number, tag: string): Entry => ({
    ...{ seq, table: '', op: 'invalidate', row: {}, tags: [tag, 'tag:once'] },
  })
  const shown = (mark: string, applied: number, tag: string) =>
    check({
      log: [group(1, 'a'), invalidation(2, tag), group(3, 'b'), invalidation(4, tag)],
      written: [],
      seen: [seen(100, 'value 3', mark, { applied })],
      sightings: [],
      boundMs: 50,
    }).violations.map(({ rule }) => rule)
  for (const tag of ['tag:odd', 'key:marks', 'key:marks:3']) {
    expect(shown('absent', 1, tag)).toEqual([])
    expect(shown('absent', 2, tag)).toEqual(['applied'])
    // It has changed, and nobody has said so.
    expect(shown('a', 3, tag)).toEqual([])
    expect(shown('a', 4, tag)).toEqual(['applied'])
    expect(shown('b', 4, tag)).toEqual([])
  }
  for (const tag of ['tag:even', 'key:marks:4', 'key:posts']) expect(shown('a', 4, tag)).toEqual([])
})
