import { expect, test } from 'bun:test'
import { createFollower } from '../../src/store/follower.ts'
import type { Change } from '../../src/store/store.ts'
import { createTestLog } from '../harness.ts'

const change = (seq: number): Change => ({
  seq,
  atMs: 0,
  table: 'notes',
  op: 'create',
  key: String(seq),
  row: [],
  tags: [],
})

function setUp() {
  const log = createTestLog()
  const follower = createFollower({ log, read: ([seq]) => change(seq) })
  const heard: string[] = []
  follower.onChange(({ seq }) => void heard.push(`${seq}`))
  follower.onGap((seq) => void heard.push(`gap to ${seq}`))
  const accept = (...seqs: number[]) =>
    follower.accept(seqs.map((seq) => [seq, 0, 'notes', '{}'] as const)).map(({ seq }) => seq)
  return { log, follower, heard, accept }
}

test('each entry is heard once and in order, whoever brings it first', () => {
  const { heard, accept, follower } = setUp()
  accept(1, 2)
  // A poll and a commit overlap: what is heard of already is answered all the same.
  expect(accept(1, 2, 3)).toEqual([1, 2, 3])
  accept(2)
  expect(heard).toEqual(['1', '2', '3'])
  expect(follower.applied).toBe(3)
})

test('a hole is told as one before anything beyond it', () => {
  const { heard, accept } = setUp()
  accept(1)
  accept(5, 6)
  expect(heard).toEqual(['1', 'gap to 4', '5', '6'])
})

test('a listener that throws is a bug in a room: the others hear, and it is logged', () => {
  const { heard, accept, follower, log } = setUp()
  follower.onChange(() => {
    throw new Error('bug')
  })
  const after: number[] = []
  follower.onChange(({ seq }) => void after.push(seq))
  accept(1)
  expect([heard, after]).toEqual([['1'], [1]])
  expect(log.lines.map(({ event }) => event)).toEqual(['store.listener_failed'])
})
