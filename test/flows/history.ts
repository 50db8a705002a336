/**
 * What clients did and what they were told, against what the database says afterwards.
 *
 * Every row carries a `mark`, unique to the write that made this version of it, and the log holds
 * each version with its seq. So a mark seen by a reader is a place in the one order of all writes,
 * and every promise is a comparison of such places:
 *
 *   acknowledged = present once · refused = absent · unknown = all or nothing · log gapless, and it
 *   replays to the tables · order of acknowledgements = order of the log · a read on a node is never
 *   older than what that node has answered before · a scan is one moment of the table.
 */

export type Outcome =
  | 'ok'
  /** Refused: certainly not done. */
  | 'failed'
  /** No answer, or one that promises nothing: done or not, but not half. */
  | 'unknown'

/** `table/id`. */
export type Key = string

export type Op =
  /** Another version of a row. `after`: only if this mark is the current one. */
  | { readonly kind: 'set'; readonly key: Key; readonly mark: string; readonly after?: string }
  | { readonly kind: 'add'; readonly key: Key; readonly mark: string }
  | {
      readonly kind: 'transfer'
      readonly from: Key
      readonly to: Key
      readonly amount: number
      readonly mark: string
    }
  /** `seen`: its mark, null if there is no such row. */
  | { readonly kind: 'read'; readonly key: Key; readonly seen?: string | null }
  | { readonly kind: 'scan'; readonly table: string; readonly seen?: readonly Row[] }

export type Row = Readonly<Record<string, unknown>>

export interface Done {
  readonly op: Op
  readonly node: number
  /** Which process of the node it was sent to: one more after each restart. */
  readonly life: number
  /** On one monotonic clock, ms. */
  readonly at: number
  readonly end: number
  readonly outcome: Outcome
  /** 0: no answer. */
  readonly status: number
  readonly hasRetryAfter: boolean
  /** `x-log-seq`. */
  readonly seq?: number
}

export interface LogEntry {
  /** Of an invalidation by name. */
  readonly tags?: readonly string[]
  readonly seq: number
  readonly table: string
  readonly op: string
  readonly row: Row
}

/** The database, read behind belfry's back. */
export interface Truth {
  readonly log: readonly LogEntry[]
  readonly tables: Readonly<Record<string, readonly Row[]>>
}

/** A time in which something was broken. */
export interface Outage {
  readonly name: string
  readonly from: number
  readonly to: number
  /** Nodes that must go on answering reads meanwhile. */
  readonly readers: readonly number[]
  /** Nodes whose writes must be answered, if only with a refusal: what is broken says so at once. */
  readonly refusers: readonly number[]
}

export interface CheckInput {
  readonly history: readonly Done[]
  readonly truth: Truth
  readonly outages?: readonly Outage[]
  /** What all balances come to. */
  readonly total: number
  /**
   * Does what one URL of a node has shown bind its other URLs? Where others write, too, an entry of
   * the cache may be as old as the last poll of the log, beside a fresh one: own writes bind all URLs
   * all the same, and each URL never goes back.
   */
  readonly isOneView: boolean
}

interface Version {
  readonly seq: number
  readonly mark: string
  readonly row: Row
  readonly before: Version | undefined
}

const expected = new Set([0, 200, 201, 204, 404, 409, 412, 503, 504])

/** Every broken promise in a line of its own; empty if all were kept. */
export function check(input: CheckInput): string[] {
  const versions = versionsOf(input.truth.log)
  return [
    ...logProblems(input.truth),
    ...writeProblems(input.history, versions),
    ...strangerProblems(input.history, input.truth.log),
    ...balanceProblems(input, versions),
    ...orderProblems(input.history, versions),
    ...readProblems(input, versions),
    ...answerProblems(input),
  ]
}

/** All versions of each key in the order of the log. */
type Versions = ReadonlyMap<Key, readonly Version[]>

function versionsOf(log: readonly LogEntry[]): Versions {
  const versions = new Map<Key, Version[]>()
  for (const { seq, table, row } of log) {
    const key = keyOf(table, row)
    const known = versions.get(key) ?? []
    known.push({ seq, mark: String(row['mark']), row, before: known.at(-1) })
    versions.set(key, known)
  }
  return versions
}

export function keyOf(table: string, row: Row): Key {
  return `${table}/${String(row['id'])}`
}

function* logProblems({ log, tables }: Truth): Generator<string> {
  for (const [at, { seq }] of log.entries()) {
    if (seq === at + 1) continue
    yield `log gap: entry ${at + 1} has seq ${seq}`
    break
  }
  const replayed = new Map<Key, string>()
  for (const { table, op, row } of log) {
    if (op === 'remove') replayed.delete(keyOf(table, row))
    else replayed.set(keyOf(table, row), plain(row))
  }
  for (const [table, rows] of Object.entries(tables)) {
    for (const row of rows) {
      const key = keyOf(table, row)
      const logged = replayed.get(key)
      replayed.delete(key)
      if (logged === plain(row)) continue
      yield `log disagrees: ${key} is ${plain(row)}, by the log ${logged ?? 'absent'}`
    }
  }
  for (const [key, row] of replayed) yield `log disagrees: ${key} is absent, by the log ${row}`
}

function plain(row: Row): string {
  return JSON.stringify(row, Object.keys(row).toSorted())
}

function* writeProblems(history: readonly Done[], versions: Versions): Generator<string> {
  for (const done of history) {
    const { op, outcome, seq } = done
    const found = appliedBy(op, versions)
    if (!found) continue
    const what = describe(done)
    const whole = op.kind === 'transfer' ? 2 : 1
    const count = found.length
    if (outcome === 'ok' && count === 0) yield `lost write: ${what} is not in the log`
    else if (outcome === 'failed' && count > 0) yield `refused but done: ${what}`
    else if (count > whole) yield `done twice: ${what} is in the log ${count} times`
    else if (count > 0 && count < whole) yield `half done: ${what}`
    if (count !== whole) continue

    const [first, second] = found
    if (seq !== undefined && !found.some((one) => one.seq === seq)) {
      yield `wrong seq: ${what} was told ${seq}, the log has ${found.map((one) => one.seq).join()}`
    }
    if (first && second && Math.abs(first.seq - second.seq) !== 1) {
      yield `torn transaction: ${what} has entries ${first.seq} and ${second.seq}`
    }
    if (op.kind === 'set' && op.after !== undefined && first?.before?.mark !== op.after) {
      yield `lost update: ${what} came after ${first?.before?.mark ?? 'nothing'}, and was to come after ${op.after}`
    }
  }
}

/** The versions that a write made; undefined for reads. */
function appliedBy(op: Op, versions: Versions): readonly Version[] | undefined {
  if (op.kind === 'read' || op.kind === 'scan') return undefined
  const keys = op.kind === 'transfer' ? [op.from, op.to] : [op.key]
  return keys.flatMap((key) => (versions.get(key) ?? []).filter(({ mark }) => mark === op.mark))
}

function* strangerProblems(history: readonly Done[], log: readonly LogEntry[]): Generator<string> {
  const marks = new Set(history.map(({ op }) => ('mark' in op ? op.mark : undefined)))
  for (const { seq, table, row } of log) {
    if (!marks.has(String(row['mark']))) {
      yield `nobody wrote it: entry ${seq} has ${keyOf(table, row)} ${String(row['mark'])}`
    }
  }
}

const accountsTable = 'accounts'

function sumOf(rows: readonly Row[]): number {
  return rows.reduce((sum, { balance }) => sum + Number(balance), 0)
}

function* balanceProblems(
  { history, truth, total }: CheckInput,
  versions: Versions,
): Generator<string> {
  const sum = sumOf(truth.tables[accountsTable] ?? [])
  if (sum !== total) yield `balances: they come to ${sum}, not ${total}`
  for (const done of history) {
    const { op } = done
    if (op.kind === 'scan' && op.table === accountsTable && op.seen && sumOf(op.seen) !== total) {
      yield `balances: ${describe(done)} saw ${sumOf(op.seen)}, not ${total}`
    }
    if (op.kind !== 'transfer') continue
    for (const [key, by] of [
      [op.from, -op.amount],
      [op.to, op.amount],
    ] as const) {
      const version = versions.get(key)?.find(({ mark }) => mark === op.mark)
      const moved =
        Number(version?.row['balance'] ?? 0) - Number(version?.before?.row['balance'] ?? 0)
      if (version && moved !== by) {
        yield `lost update: ${describe(done)} moved ${key} by ${moved}, not ${by}`
      }
    }
  }
}

/** Whoever is answered before another begins is before it in the log. */
function* orderProblems(history: readonly Done[], versions: Versions): Generator<string> {
  const writes = history.flatMap((done) => {
    const seqs = appliedBy(done.op, versions)?.map(({ seq }) => seq) ?? []
    return seqs.length > 0 ? [{ done, first: Math.min(...seqs), last: Math.max(...seqs) }] : []
  })
  const answered = writes
    .filter(({ done }) => done.outcome === 'ok')
    .toSorted((a, b) => a.done.end - b.done.end)
  let floor = { last: 0, what: '' }
  let next = 0
  for (const { done, first } of writes.toSorted((a, b) => a.done.at - b.done.at)) {
    for (; next < answered.length; next++) {
      const one = answered[next]
      if (!one || one.done.end >= done.at) break
      if (one.last > floor.last) floor = { last: one.last, what: describe(one.done) }
    }
    if (first < floor.last) {
      yield `order: ${describe(done)} is entry ${first}, but ${floor.what} was answered before it began and is ${floor.last}`
    }
  }
}

interface Sight {
  readonly key: Key
  readonly seq: number
}

/** What an answer proves its node to have: the place in the log of each row it names. */
function* sightsOf({ op, outcome }: Done, versions: Versions): Generator<Sight | string> {
  if (outcome !== 'ok') return
  const at = (key: Key, mark: string): Sight | string => {
    const version = versions.get(key)?.find((one) => one.mark === mark)
    return version ? { key, seq: version.seq } : `saw ${key} as ${mark}, which never was`
  }
  switch (op.kind) {
    case 'read':
      if (op.seen === null) yield { key: op.key, seq: 0 }
      else if (op.seen !== undefined) yield at(op.key, op.seen)
      break
    case 'scan':
      for (const row of op.seen ?? []) yield at(keyOf(op.table, row), String(row['mark']))
      break
    default:
      for (const { seq } of appliedBy(op, versions)?.slice(0, 1) ?? []) {
        // Both legs of a transfer are one moment: the first will do for either.
        const keys = op.kind === 'transfer' ? [op.from, op.to] : [op.key]
        for (const key of keys) yield { key, seq: seqOf(versions, key, op.mark) ?? seq }
      }
  }
}

function seqOf(versions: Versions, key: Key, mark: string): number | undefined {
  return versions.get(key)?.find((one) => one.mark === mark)?.seq
}

function* readProblems({ history, isOneView }: CheckInput, versions: Versions): Generator<string> {
  const byEnd = history.toSorted((a, b) => a.end - b.end)
  const floors = new Map<string, { seq: number; done: Done }>()
  // What a node has answered binds its next process, too.
  const scope = ({ node }: Done, view: string, key: Key): string => `${node} ${view} ${key}`
  const viewOf = ({ op }: Done): string => (isOneView || 'mark' in op ? 'any' : op.kind)
  let next = 0
  for (const done of history.toSorted((a, b) => a.at - b.at)) {
    for (; next < byEnd.length; next++) {
      const one = byEnd[next]
      if (!one || one.end >= done.at) break
      for (const sight of sightsOf(one, versions)) {
        if (typeof sight === 'string') continue
        const place = scope(one, viewOf(one), sight.key)
        if (sight.seq > (floors.get(place)?.seq ?? 0)) floors.set(place, { ...sight, done: one })
      }
    }
    if (done.op.kind !== 'read' && done.op.kind !== 'scan') continue
    for (const sight of sightsOf(done, versions)) {
      if (typeof sight === 'string') {
        yield `dirty read: ${describe(done)} ${sight}`
        continue
      }
      for (const view of new Set(['any', viewOf(done)])) {
        const floor = floors.get(scope(done, view, sight.key))
        if (!floor || sight.seq >= floor.seq) continue
        const why = 'mark' in floor.done.op ? 'own write missed' : 'went back'
        yield `stale read: ${describe(done)} saw ${sight.key} as of ${sight.seq}; ${why}: ${describe(floor.done)} was answered with ${floor.seq}`
        break
      }
    }
    yield* tornProblems(done, versions)
  }
}

/** A scan is one moment: nothing in it was replaced before another thing in it was written. */
function* tornProblems(done: Done, versions: Versions): Generator<string> {
  const { op } = done
  if (op.kind !== 'scan' || !op.seen) return
  let [newest, replaced] = [0, Infinity]
  for (const row of op.seen) {
    const all = versions.get(keyOf(op.table, row)) ?? []
    const at = all.findIndex(({ mark }) => mark === String(row['mark']))
    newest = Math.max(newest, all[at]?.seq ?? 0)
    replaced = Math.min(replaced, (at < 0 ? undefined : all[at + 1])?.seq ?? Infinity)
  }
  if (newest < replaced) return
  yield `torn scan: ${describe(done)} saw entry ${newest} beside what entry ${replaced} had replaced`
}

/** Attempts in an outage that are enough to say that none got through. */
const attemptsMin = 10

function* answerProblems({ history, outages = [] }: CheckInput): Generator<string> {
  for (const done of history) {
    if (!expected.has(done.status)) yield `unexpected answer: ${describe(done)}`
    if (done.status === 503 && !done.hasRetryAfter) yield `no Retry-After: ${describe(done)}`
  }
  for (const { name, from, to, readers, refusers } of outages) {
    const during = history.filter(({ at, end }) => at >= from && end <= to)
    for (const node of readers) {
      const reads = during.filter(
        ({ op, node: at }) => at === node && (op.kind === 'read' || op.kind === 'scan'),
      )
      if (reads.length >= attemptsMin && !reads.some(({ outcome }) => outcome === 'ok')) {
        yield `reads stopped: ${name}, and none of ${reads.length} reads on node ${node} was answered`
      }
    }
    for (const done of during) {
      if (!refusers.includes(done.node) || !('mark' in done.op) || done.status !== 0) continue
      yield `no answer: ${name}, and ${describe(done)} was left hanging`
    }
  }
}

export function describe({ op, node, life, at, outcome, status }: Done): string {
  const where = `node ${node}.${life} at ${Math.round(at)} ms`
  const told = `${outcome}, ${status === 0 ? 'no answer' : status}`
  switch (op.kind) {
    case 'set':
    case 'add':
      return `${op.kind} ${op.key} ${op.mark} (${where}, ${told})`
    case 'transfer':
      return `transfer ${op.mark} of ${op.amount} from ${op.from} to ${op.to} (${where}, ${told})`
    case 'read':
      return `read ${op.key} (${where}, ${told})`
    case 'scan':
      return `scan ${op.table} (${where}, ${told})`
  }
}
