/** The checker itself: a history in which every promise was kept, and then each broken once. */
import { describe, expect, test } from 'bun:test'
import { check, type CheckInput, type Done, type LogEntry, type Op } from './history.ts'

const total = 200

/** Answered after 1 ms by node 0. */
const done = (at: number, op: Op, more: Partial<Done> = {}): Done => ({
  op,
  node: 0,
  life: 0,
  at,
  end: at + 1,
  outcome: 'ok',
  status: 200,
  hasRetryAfter: false,
  ...more,
})

const account = (id: string, balance: number, mark: string) => ({ id, balance, mark })
const register = (mark: string) => ({ id: 'r', mark })

const log: readonly LogEntry[] = [
  { seq: 1, table: 'accounts', op: 'create', row: account('a', 100, 'm1') },
  { seq: 2, table: 'accounts', op: 'create', row: account('b', 100, 'm2') },
  { seq: 3, table: 'registers', op: 'create', row: register('m3') },
  { seq: 4, table: 'accounts', op: 'update', row: account('a', 70, 't1') },
  { seq: 5, table: 'accounts', op: 'update', row: account('b', 130, 't1') },
  { seq: 6, table: 'registers', op: 'update', row: register('m4') },
]

const set = (mark: string, after?: string): Op => ({
  kind: 'set',
  key: 'registers/r',
  mark,
  ...(after === undefined ? {} : { after }),
})
const add = (key: string, mark: string): Op => ({ kind: 'add', key, mark })
const transfer: Op = {
  kind: 'transfer',
  from: 'accounts/a',
  to: 'accounts/b',
  amount: 30,
  mark: 't1',
}
const read = (seen: string | null): Op => ({ kind: 'read', key: 'registers/r', seen })
const scan = (a: readonly [number, string], b: readonly [number, string]): Op => ({
  kind: 'scan',
  table: 'accounts',
  seen: [account('a', ...a), account('b', ...b)],
})

const setup: readonly Done[] = [
  done(10, add('accounts/a', 'm1'), { seq: 1, status: 201 }),
  done(20, add('accounts/b', 'm2'), { seq: 2, status: 201 }),
  done(30, add('registers/r', 'm3'), { seq: 3, status: 201 }),
  done(40, transfer),
  done(50, set('m4', 'm3'), { seq: 6 }),
]

const kept: CheckInput = {
  history: setup,
  truth: {
    log,
    tables: {
      accounts: [account('a', 70, 't1'), account('b', 130, 't1')],
      registers: [register('m4')],
    },
  },
  total,
  isOneView: true,
}

const complaints = (change: Partial<CheckInput>) =>
  check({ ...kept, ...change }).map((one) => one.slice(0, one.indexOf(':')))

const also = (...more: readonly Done[]) => ({ history: [...setup, ...more] })
const withLog = (entries: readonly LogEntry[]) => ({
  truth: { log: entries, tables: kept.truth.tables },
})
const unknown = { outcome: 'unknown', status: 0 } as const

describe('the checker is silent about', () => {
  test('promises that were kept', () => {
    const history = also(
      done(35, read('m3')),
      done(45, scan([70, 't1'], [130, 't1'])),
      // Two at once may see either.
      done(49, read('m3'), { end: 58 }),
      done(60, read('m4')),
      done(62, add('entries/1', 'lost'), unknown),
      done(64, add('entries/2', 'no'), { outcome: 'failed', status: 409 }),
      done(66, add('entries/3', 'later'), {
        outcome: 'unknown',
        status: 503,
        hasRetryAfter: true,
      }),
    )
    expect(complaints(history)).toEqual([])
  })

  test('an unknown write that happened, whole', () => {
    const history = setup.map((one) => (one.op === transfer ? { ...one, ...unknown } : one))
    expect(complaints({ history })).toEqual([])
  })

  test('another node that is behind, but not a node that was restarted', () => {
    expect(complaints(also(done(60, read('m3'), { node: 1 })))).toEqual([])
    expect(complaints(also(done(60, read('m3'), { life: 1 })))).toEqual(['stale read'])
  })
})

test('where URLs are views of their own, each is bound by itself, and all by own writes', () => {
  const table = (mark: string): Op => ({ kind: 'scan', table: 'registers', seen: [register(mark)] })
  const elsewhere = { node: 1 }
  const apart = also(done(60, table('m4'), elsewhere), done(65, read('m3'), elsewhere))
  expect(complaints({ ...apart, isOneView: false })).toEqual([])
  expect(complaints(apart)).toEqual(['stale read'])
  const back = also(done(60, read('m4'), elsewhere), done(65, read('m3'), elsewhere))
  expect(complaints({ ...back, isOneView: false })).toEqual(['stale read'])
  expect(complaints({ ...also(done(60, read('m3'))), isOneView: false })).toEqual(['stale read'])
  expect(complaints({ ...also(done(60, table('m3'))), isOneView: false })).toEqual(['stale read'])
})

describe('the checker complains about', () => {
  test('an acknowledged write that is gone', () => {
    expect(complaints(also(done(60, add('entries/1', 'gone'))))).toEqual(['lost write'])
  })

  test('a refused write that happened', () => {
    const history = setup.map((one, at) =>
      at === 4 ? { ...one, outcome: 'failed' as const, status: 412 } : one,
    )
    expect(complaints({ history })).toEqual(['refused but done'])
  })

  test('a write that happened twice, also one nobody knows of', () => {
    const twice = [
      ...log,
      { seq: 7, table: 'registers', op: 'update', row: register('m4') },
    ] as const
    expect(complaints(withLog(twice))).toEqual(['done twice'])
    const history = setup.map((one, at) => (at === 4 ? { ...one, ...unknown } : one))
    expect(complaints({ ...withLog(twice), history })).toEqual(['done twice'])
  })

  test('half a transfer, wherever it is seen', () => {
    const half = log
      .filter(({ seq }) => seq !== 5)
      .map((one) => (one.seq === 6 ? { ...one, seq: 5 } : one))
    const tables = {
      ...kept.truth.tables,
      accounts: [account('a', 70, 't1'), account('b', 100, 'm2')],
    }
    const history = setup.map((one, at) => (at === 4 ? { ...one, seq: 5 } : one))
    expect(complaints({ history, truth: { log: half, tables } })).toEqual(['half done', 'balances'])
    // Committed whole, shown by halves.
    expect(complaints(also(done(45, scan([70, 't1'], [100, 'm2']))))).toEqual([
      'balances',
      'stale read',
    ])
    expect(complaints(also(done(45, scan([100, 'm1'], [130, 't1']))))).toEqual([
      'balances',
      'stale read',
      'torn scan',
    ])
  })

  test('a transfer on an old balance', () => {
    const overwritten = log.map((one) =>
      one.seq === 5 ? { ...one, row: account('b', 120, 't1') } : one,
    )
    const tables = {
      ...kept.truth.tables,
      accounts: [account('a', 70, 't1'), account('b', 120, 't1')],
    }
    expect(complaints({ truth: { log: overwritten, tables } })).toEqual(['balances', 'lost update'])
  })

  test('a transaction that others came between', () => {
    const between = log.map((one) =>
      one.seq === 5 ? { ...one, seq: 6 } : one.seq === 6 ? { ...one, seq: 5 } : one,
    )
    const history = setup.map((one, at) => (at === 4 ? { ...one, at: 38, seq: 5 } : one))
    const sorted = between.toSorted((a, b) => a.seq - b.seq)
    expect(complaints({ ...withLog(sorted), history })).toEqual(['torn transaction'])
  })

  test('a write that came after another version than it asked for', () => {
    const history = setup.map((one, at) => (at === 4 ? { ...one, op: set('m4', 'm0') } : one))
    expect(complaints({ history })).toEqual(['lost update'])
  })

  test('a gap in the log, and rows that it does not come to', () => {
    expect(complaints(withLog(log.map((one) => ({ ...one, seq: one.seq + 1 }))))).toContain(
      'log gap',
    )
    const missing = also(done(60, read('m4'), { outcome: 'unknown', status: 0 }))
    const tables = { ...kept.truth.tables, registers: [register('m3')] }
    expect(complaints({ ...missing, truth: { log, tables } })).toEqual(['log disagrees'])
    expect(complaints({ truth: { log, tables: { ...tables, registers: [] } } })).toEqual([
      'log disagrees',
    ])
  })

  test('a wrong number in the answer, and an order that is not that of the answers', () => {
    const wrong = setup.map((one, at) => (at === 4 ? { ...one, seq: 5 } : one))
    expect(complaints({ history: wrong })).toEqual(['wrong seq'])
    const late = setup.map((one, at) => (at === 0 ? { ...one, at: 70, end: 71 } : one))
    expect(complaints({ history: late })).toEqual(['order'])
  })

  test('an own write that is missed, a read that goes back, a row that never was', () => {
    expect(complaints(also(done(60, read('m3'))))).toEqual(['stale read'])
    expect(complaints(also(done(60, read(null))))).toEqual(['stale read'])
    const elsewhere = { node: 1 }
    expect(
      complaints(also(done(60, read('m4'), elsewhere), done(65, read('m3'), elsewhere))),
    ).toEqual(['stale read'])
    expect(complaints(also(done(60, read('rolled back'))))).toEqual(['dirty read'])
  })

  test('a version that nobody wrote', () => {
    expect(complaints({ history: setup.slice(0, 4) })).toEqual(['nobody wrote it'])
  })

  test('answers that help nobody', () => {
    const failure = { outcome: 'unknown' } as const
    expect(complaints(also(done(60, add('entries/1', 'e'), { ...failure, status: 500 })))).toEqual([
      'unexpected answer',
    ])
    expect(complaints(also(done(60, add('entries/1', 'e'), { ...failure, status: 503 })))).toEqual([
      'no Retry-After',
    ])
    const outages = [{ name: 'primary killed', from: 55, to: 99, readers: [1], refusers: [1] }]
    const hung = also(done(60, add('entries/1', 'e'), { ...unknown, node: 1 }))
    expect(complaints({ ...hung, outages })).toEqual(['no answer'])
    const reads = Array.from({ length: 20 }, (_, at) =>
      done(60 + at, read('m4'), { node: 1, outcome: 'unknown', status: 503, hasRetryAfter: true }),
    )
    expect(complaints({ ...also(...reads), outages })).toEqual(['reads stopped'])
  })
})
