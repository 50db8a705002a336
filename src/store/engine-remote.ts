/**
 * The engine over Hrana, libSQL's protocol over HTTP: a sqld or Turso primary, or a replica of one.
 *
 * A commit group is ONE request, however many writes it has, because a step of a Hrana batch can depend
 * on how another one ended:
 *
 *   begin ─► [ savepoint ─► op … ─► (failed: rollback to) ─► release ─► mark ]… ─► entries ─► commit
 *
 * so over a link of 200 ms a group costs 200 ms, and holds the primary's lock for none of it. A write too
 * large for one request is sent in several, in a transaction of its own.
 *
 * Limits: a request is given up after `requestMsMax`; whether a commit that was cut off happened is not
 * known then, and its writers are told that the database cannot be reached.
 */
import { BatchCond, openHttp, type Batch, type BatchStep, type Stream } from '@libsql/hrana-client'
import { must } from '../lib/assert.ts'
import { systemClock } from '../lib/clock.ts'
import { ended, entriesAfter, selectSeq, type Begin, type Engine } from './engine.ts'
import { bindable, storeErrorOf } from './libsql.ts'
import type {
  Committed,
  LogEntry,
  Logged,
  Query,
  RawRow,
  RemoteTarget,
  StoreError,
  Write,
  WriteOutcome,
} from './messages.ts'

/** About as long as a sqld waits for its own lock. */
const requestMsMax = 6_000

/** One statement of a migration, a table copied row by row, say. */
const migrationMsMax = 10 * 60_000

/** A server with too many requests has not looked at this one: it is sent again after so long, then twice that. */
const busyMs = 25
const busyTriesMax = 5

/** Statements in one request; a sqld takes bodies of some megabytes. */
const opsPerRequestMax = 400

type Outcome =
  | { readonly rows: readonly RawRow[] }
  | { readonly error: StoreError }
  /** Its condition did not hold. */
  | { readonly skipped: true }

interface Sent {
  readonly step: BatchStep
  readonly outcome: Promise<Outcome>
}

export function createRemoteEngine({ url, authToken }: RemoteTarget): Engine {
  const clientOf = (msMax: number) => {
    const send = (request: Request): Promise<Response> =>
      fetch(request, { signal: AbortSignal.timeout(msMax) })
    const opened = openHttp(httpUrl(url), authToken, send)
    opened.intMode = 'number'
    return opened
  }
  const client = clientOf(requestMsMax)
  const patientClient = clientOf(migrationMsMax)
  let open: Stream | undefined

  /** One request on a stream of its own. */
  const once = async <T>(run: (stream: Stream) => Promise<T>, tries = 1): Promise<T> => {
    const stream = client.openStream()
    try {
      const result = run(stream)
      stream.closeGracefully()
      return await result
    } catch (thrown) {
      stream.close()
      if (!isBusy(thrown) || tries === busyTriesMax) throw thrown
    }
    const waitMs = busyMs * 2 ** (tries - 1) * (0.5 + Math.random())
    await new Promise<void>((resolve) => void systemClock.after(waitMs, resolve))
    return await once(run, tries + 1)
  }

  const commitTogether = (
    writes: readonly Write[],
    after: number,
    foreignKeys?: 'off',
  ): Promise<Committed> =>
    once(async (stream) => {
      const batch = stream.batch(false)
      // Inside a transaction this pragma does nothing.
      if (foreignKeys === 'off') add(batch, 'pragma foreign_keys = off')
      const begin = add(batch, 'begin immediate')
      const start = add(batch, selectSeq, begin.step)
      let last = start.step
      const sent = writes.map((write) => {
        const { end, ...parts } = addWrite(batch, write, last)
        last = end
        return parts
      })
      const entries = addQuery(batch, entriesAfter(after), last)
      const commit = add(batch, 'commit', entries.step)
      addIf(batch, 'rollback', [BatchCond.ok(begin.step), BatchCond.not(BatchCond.ok(commit.step))])
      await batch.execute()
      const outcomes = await Promise.all(sent.map(outcomeOf))
      const failure = await failureOf([
        begin,
        start,
        ...sent.map(({ mark }) => mark),
        entries,
        commit,
      ])
      if (failure)
        return { outcomes: writes.map(() => ({ error: failure })), entries: [], upTo: after }
      let from = await seqOf(start)
      const settled = outcomes.map((outcome): WriteOutcome => {
        if ('error' in outcome) return outcome
        const settledOne = { from, upTo: outcome.upTo }
        from = outcome.upTo
        return settledOne
      })
      const rows = (await rowsOf(entries)) as unknown as LogEntry[]
      return { outcomes: settled, entries: rows, upTo: from }
    })

  /** Of one write alone: in as many requests as it needs. */
  const commitLarge = async (
    write: Write,
    after: number,
    foreignKeys: 'on' | 'off' = 'on',
  ): Promise<Committed> => {
    try {
      await engine.begin({ foreignKeys, isUnbounded: false })
      const from = Number((await engine.run({ sql: selectSeq, params: [] }))[0]?.[0])
      for (let at = 0; at < write.length; at += opsPerRequestMax) {
        await runAll(
          must(open, () => 'begun above'),
          write.slice(at, at + opsPerRequestMax),
        )
      }
      const logged = await engine.end('commit', after)
      return { outcomes: [{ from, upTo: logged.upTo }], ...logged }
    } catch (thrown) {
      await engine.end('rollback', after).catch(() => {})
      return { outcomes: [{ error: remoteErrorOf(thrown) }], entries: [], upTo: after }
    }
  }

  const engine = {
    read: (query: Query) => once((stream) => rowsFrom(stream, query)),
    async commit(writes: readonly Write[], after: number, foreignKeys?: 'off'): Promise<Committed> {
      const refusals = writes.map(refusalOf)
      if (refusals.some((one) => one !== undefined)) {
        const rest = writes.filter((_, at) => refusals[at] === undefined)
        const done = await engine.commit(rest, after, foreignKeys)
        const settled = done.outcomes.values()
        const outcomes = refusals.map((error) =>
          error ? { error } : must(settled.next().value, () => 'each has its outcome'),
        )
        return { ...done, outcomes }
      }
      const [only] = writes
      if (writes.length === 1 && only && only.length > opsPerRequestMax) {
        return await commitLarge(only, after, foreignKeys)
      }
      return await commitTogether(writes, after, foreignKeys)
    },
    async begin({ foreignKeys, isUnbounded }: Begin) {
      const stream = (isUnbounded ? patientClient : client).openStream()
      open = stream
      try {
        if (foreignKeys === 'off') await stream.run('pragma foreign_keys = off')
        await stream.run('begin immediate')
      } catch (thrown) {
        stream.close()
        open = undefined
        throw thrown
      }
    },
    async run(query: Query) {
      const stream = open
      if (!stream) throw ended()
      try {
        return await rowsFrom(stream, query)
      } catch (thrown) {
        // `or rollback` may have ended it: what comes then would be committed alone.
        if (open === stream && (await isEnded(stream))) {
          stream.close()
          open = undefined
        }
        throw thrown
      }
    },
    async end(how: 'commit' | 'rollback', after: number): Promise<Logged> {
      const stream = open
      open = undefined
      if (!stream && how === 'commit') throw ended()
      if (!stream) return { entries: [], upTo: after }
      try {
        const isKept = how === 'commit'
        const entries = isKept ? rowsFrom(stream, entriesAfter(after)) : Promise.resolve([])
        const newest = isKept ? rowsFrom(stream, { sql: selectSeq, params: [] }) : entries
        const ended = stream.run(how)
        stream.closeGracefully()
        await Promise.all([entries, newest, ended])
        const upTo = Number((await newest)[0]?.[0] ?? after)
        return { entries: (await entries) as unknown as LogEntry[], upTo }
      } catch (thrown) {
        stream.close()
        throw thrown
      }
    },
    close() {
      client.close()
      patientClient.close()
    },
  } satisfies Engine
  return engine
}

function isBusy(thrown: unknown): boolean {
  return thrown instanceof Error && 'status' in thrown && thrown.status === 429
}

/** `libsql:` is https, unless `?tls=0` says otherwise. */
function httpUrl(text: string): URL {
  const url = new URL(text)
  if (url.protocol !== 'libsql:') return url
  const scheme = url.searchParams.get('tls') === '0' ? 'http:' : 'https:'
  return new URL(`${scheme}${text.slice('libsql:'.length).split('?')[0]}`)
}

function statement({ sql, params }: Query): [string, never[]] {
  return [sql, params.map(sendable) as never[]]
}

/** As a file would store it: half a surrogate pair, which no JSON parser takes, and no number. */
function sendable(param: unknown): unknown {
  const value = bindable(param)
  if (typeof value === 'string') return value.isWellFormed() ? value : value.toWellFormed()
  return Number.isNaN(value) ? null : value
}

/** Before it is in one request with others', which would fail with it. */
function refusalOf(write: Write): StoreError | undefined {
  const isSaid = write.every(({ params }) =>
    params.every((value) => typeof value !== 'number' || Math.abs(value) !== Infinity),
  )
  return isSaid
    ? undefined
    : { code: 'SQLITE_MISMATCH', message: 'an infinite number cannot be sent' }
}

async function rowsFrom(stream: Stream, query: Query): Promise<readonly RawRow[]> {
  const { rows } = await stream.query(statement(query))
  return rows.map((row) => Array.from(row as unknown as ArrayLike<unknown>, plain))
}

/** As the file's binding gives blobs. */
function plain(value: unknown): unknown {
  return value instanceof ArrayBuffer ? new Uint8Array(value) : value
}

/** Whether there is no transaction on it: only then another one can begin. */
async function isEnded(stream: Stream): Promise<boolean> {
  if (stream.closed) return false
  const batch = stream.batch(false)
  const begin = add(batch, 'begin')
  add(batch, 'rollback', begin.step)
  return await batch.execute().then(
    async () => 'rows' in (await begin.outcome),
    () => false,
  )
}

async function runAll(stream: Stream, ops: readonly Query[]): Promise<void> {
  const batch = stream.batch(false)
  const sent: Sent[] = []
  for (const op of ops) sent.push(addQuery(batch, op, sent.at(-1)?.step))
  await batch.execute()
  const failure = await failureOf(sent)
  if (failure) throw Object.assign(new Error(failure.message), { code: failure.code })
}

function add(batch: Batch, sql: string, ifOk?: BatchStep): Sent {
  return addIf(batch, sql, ifOk ? [BatchCond.ok(ifOk)] : [])
}

function addQuery(batch: Batch, query: Query, ifOk?: BatchStep): Sent {
  return addIf(batch, statement(query), ifOk ? [BatchCond.ok(ifOk)] : [])
}

function addIf(batch: Batch, sql: string | [string, never[]], conditions: BatchCond[]): Sent {
  const step = batch.step()
  for (const condition of conditions) step.condition(condition)
  const outcome = step.query(sql).then(
    (result): Outcome =>
      result
        ? { rows: result.rows.map((row) => Array.from(row as unknown as ArrayLike<unknown>)) }
        : { skipped: true },
    (thrown: unknown): Outcome => ({ error: remoteErrorOf(thrown) }),
  )
  return { step, outcome }
}

interface SentWrite {
  readonly ops: readonly Sent[]
  readonly mark: Sent
}

/** What comes after depends on `end`: it is not ok only if the whole transaction is gone. */
function addWrite(batch: Batch, write: Write, ifOk: BatchStep): SentWrite & { end: BatchStep } {
  const begin = add(batch, 'savepoint w', ifOk)
  const ops: Sent[] = []
  for (const op of write) ops.push(addQuery(batch, op, ops.at(-1)?.step ?? begin.step))
  const last = ops.at(-1)
  if (last) {
    addIf(batch, 'rollback to w', [
      BatchCond.ok(begin.step),
      BatchCond.not(BatchCond.ok(last.step)),
    ])
  }
  const release = add(batch, 'release w', begin.step)
  const mark = add(batch, selectSeq, release.step)
  return { ops, mark, end: mark.step }
}

async function outcomeOf({
  ops,
  mark,
}: SentWrite): Promise<{ readonly upTo: number } | { readonly error: StoreError }> {
  for (const { outcome } of ops) {
    const one = await outcome
    if ('error' in one) return one
  }
  return { upTo: await seqOf(mark) }
}

async function rowsOf({ outcome }: Sent): Promise<readonly RawRow[]> {
  const one = await outcome
  return 'rows' in one ? one.rows : []
}

async function seqOf(sent: Sent): Promise<number> {
  return Number((await rowsOf(sent))[0]?.[0] ?? 0)
}

/** Of steps that must all have run. */
async function failureOf(sent: readonly Sent[]): Promise<StoreError | undefined> {
  for (const { outcome } of sent) {
    const one = await outcome
    if ('error' in one) return one.error
    if ('skipped' in one) return { code: 'SQLITE_ABORT', message: 'the transaction was ended' }
  }
  return undefined
}

/** A server tells the primary code only; the text says which constraint it was. */
const constraints: readonly (readonly [RegExp, string])[] = [
  [/UNIQUE constraint failed/, 'SQLITE_CONSTRAINT_UNIQUE'],
  [/NOT NULL constraint failed/, 'SQLITE_CONSTRAINT_NOTNULL'],
  [/FOREIGN KEY constraint failed/, 'SQLITE_CONSTRAINT_FOREIGNKEY'],
  [/CHECK constraint failed/, 'SQLITE_CONSTRAINT_CHECK'],
]

export function remoteErrorOf(thrown: unknown): StoreError {
  if (!(thrown instanceof Error)) return storeErrorOf(thrown)
  const { message } = thrown
  const code = 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : ''
  const constraint = constraints.find(([pattern]) => pattern.test(message))?.[1]
  if (constraint) return { code: constraint, message }
  if (code.startsWith('SQLITE_') || code.startsWith('BELFRY_')) return { code, message }
  if ('status' in thrown && (thrown.status === 401 || thrown.status === 403)) {
    return { code: 'BELFRY_REFUSED', message }
  }
  // What the client cannot say, and what the server's own parser refuses or cannot answer with, is our
  // mistake or the app's; all else is the way there, and would hold everybody's writes back.
  const isOurs =
    thrown instanceof RangeError ||
    code.startsWith('SQL_') ||
    code === 'RESPONSE_TOO_LARGE' ||
    ('status' in thrown && thrown.status === 413)
  return { code: isOurs ? 'SQLITE_ERROR' : 'BELFRY_UNREACHABLE', message }
}
