import { expect, test } from 'bun:test'
import {
  readFcas,
  readList,
  readPoint,
  readPublication,
  readStats,
  recordedAt,
} from '../../src/page/wire.ts'

const row = {
  region: 'NSW1',
  at: '2021-10-06T05:05:00.000Z',
  price: -38.01,
  demand: 5768.91,
  generation: null,
  interchange: -47.63,
  source: 'AEMO dispatch',
}

test('readPoint takes ISO stamps and refuses half a row', () => {
  expect(readPoint(row)).toEqual({
    at: Date.UTC(2021, 9, 6, 5, 5),
    price: -38.01,
    demand: 5768.91,
    interchange: -47.63,
    source: 'AEMO dispatch',
  })
  expect([null, 'x', { ...row, at: 'soon' }, { ...row, price: '1' }].map(readPoint)).toEqual([
    null,
    null,
    null,
    null,
  ])
})

test('readPublication takes regions it knows', () => {
  const publication = { collection: 'prices/live', op: 'create', id: 'NSW1,x', row, seq: 7 }
  expect(readPublication(publication)).toEqual({ op: 'create', region: 'NSW1', row, seq: 7 })
  expect(readPublication({ ...publication, row: { ...row, region: '__proto__' } })).toBeNull()
  expect(readPublication({ ...publication, op: 'drop' })).toBeNull()
  expect(readPublication('x')).toBeNull()
})

test('readFcas leaves out what is null', () => {
  expect(readFcas({ at: 0, raise1sec: 7.3, lowerreg: null, source: 's' })).toEqual({
    at: 0,
    prices: { raise1sec: 7.3 },
    source: 's',
  })
})

test('readStats and readList refuse other shapes', () => {
  const stats = { connections: 1, subscriptions: 2, cacheHitShare: 0.5, seq: 9 }
  expect(readStats(stats)).toEqual({ connections: 1, subscriptions: 2, cacheHitShare: 0.5 })
  expect(readStats({ connections: 1 })).toBeNull()
  expect(readList({ items: [1], next: 'c', prev: null })).toEqual({ items: [1], next: 'c' })
  expect(readList({ error: 1 })).toBeNull()
})

test('recordedAt reads the true date out of a replayed source only', () => {
  expect(recordedAt('AEMO recorded 2021-10-06T15:05+10:00, replayed')).toBe(
    Date.UTC(2021, 9, 6, 5, 5),
  )
  expect([recordedAt('AEMO dispatch'), recordedAt('AEMO recorded then, replayed')]).toEqual([
    null,
    null,
  ])
})
