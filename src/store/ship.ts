/**
 * Shipping: keeps a database at a URL (a sqld of its own, a Turso database) equal to a local file, so that
 * reads can go there. The log is what is shipped: the rows of its entries, in order, and the last `seq` with
 * them in one transaction, so a copy always knows how far it is.
 *
 *   empty or of another schema ─► tables made anew ─► rows copied, page by page ─► entries since then ─► in step
 *   in step                    ─► entries since its seq
 *   behind the log we keep     ─► copied anew
 *
 * While pages are copied, rows go on changing: a copied page may be newer than the next. Applying every entry
 * since the copying began repairs that, because an entry holds the whole row (upserted or deleted by its key);
 * only then is the copy told to be at a seq, and read. Foreign keys are off over there: what a cascade does
 * here is in the log.
 *
 * A database that is neither empty nor marked as a copy of this one is never touched.
 */
import { systemTables } from '../../db/system.ts'
import { Fault } from '../fault.ts'
import type { Log } from '../observe/log.ts'
import { quote, text } from './ddl.ts'
import { entriesAfter, selectSeq } from './engine.ts'
import type { LogEntry, Query, RawRow, Write } from './messages.ts'
import type { Pool } from './pool.ts'
import type { ThreadClient } from './thread-client.ts'

/** A request of a few hundred KB. */
const rowsPerPage = 250

/** Entries one call ships; the next call goes on. */
const stepsPerCall = 40

export interface ShipperDeps {
  readonly log: Log
  readonly name: string
  readonly primary: Pick<Pool, 'read'>
  readonly open: (onDeath: (error: Error) => void) => Promise<ThreadClient>
}

interface Table {
  readonly name: string
  readonly columns: readonly string[]
  readonly key: readonly string[]
  readonly blobs: ReadonlySet<string>
}

export interface Shipper {
  /** Brings the copy further and answers with the seq it has reached. */
  advance(): Promise<number>
  /** While it is at work: entries of the log beyond this one are still needed. Else `Infinity`. */
  neededAfter(): number
  /** Also in the middle of a copy, which is then made anew next time. */
  stop(): Promise<void>
}

export function createShipper({ log, name, primary, open }: ShipperDeps): Shipper {
  let thread: ThreadClient | undefined
  let tables: ReadonlyMap<string, Table> | undefined
  let reached = 0
  let needed = Infinity
  let isBehind = false
  let isStopped = false

  const here = async (sql: string, params: readonly unknown[] = []): Promise<readonly RawRow[]> =>
    (await primary.read({ sql, params })).rows

  const entriesHere = async (seq: number) => (await primary.read(entriesAfter(seq))).rows

  const entryHere = async (seq: number) =>
    (await here('select seq, at, subject from log where seq = ?', [seq]))[0]

  const newest = async (): Promise<number> => Number((await here(selectSeq))[0]?.[0])

  const living = async (): Promise<ThreadClient> => {
    if (isStopped) throw new Fault('unavailable', `${name} is shipped to no more`)
    if (!thread || thread.isDead) thread = await open(() => {})
    return thread
  }
  const there = async (sql: string): Promise<readonly RawRow[]> => {
    const answer = await (await living()).ask({ kind: 'read', query: { sql, params: [] } })
    return 'rows' in answer ? answer.rows : []
  }
  /** In one transaction. */
  const send = async (ops: Write): Promise<void> => {
    const answer = await (
      await living()
    ).ask({ kind: 'commit', writes: [ops], after: Number.MAX_SAFE_INTEGER, foreignKeys: 'off' })
    const outcome = 'outcomes' in answer ? answer.outcomes[0] : undefined
    if (outcome && 'error' in outcome) throw new Fault('unavailable', outcome.error.message)
  }

  /** Before there is a log over there, one by one. */
  const make = async (statements: readonly string[]): Promise<void> => {
    const one = await living()
    await one.ask({ kind: 'begin', foreignKeys: 'off', isUnbounded: true })
    try {
      for (const sql of statements) await one.ask({ kind: 'run', query: { sql, params: [] } })
      await one.ask({ kind: 'end', how: 'commit', after: Number.MAX_SAFE_INTEGER })
    } catch (thrown) {
      await one.ask({ kind: 'end', how: 'rollback', after: 0 }).catch(() => {})
      throw thrown
    }
  }

  /** The copy's seq, once it is a copy of what is here. */
  const connect = async (): Promise<number> => {
    const schema = await here(schemaSql)
    const source = String((await here("select value from meta where name = 'id'"))[0]?.[0])
    const hash = Bun.hash(JSON.stringify(schema)).toString(36)
    // A restored database has a life of its own: its log has gone back, and the copy knows what it undid.
    const life = (await here("select value from meta where name = 'life'")).map(([one]) => one)
    const mark = JSON.stringify([source, hash, ...life])
    const stored = (await there(tablesSql)).map(([one]) => String(one))
    const isMarked = stored.includes('belfry_copy')
    const copied = isMarked ? String((await there('select mark from belfry_copy'))[0]?.[0]) : ''
    if (!isMarked && stored.length > 0) {
      throw new Fault('unavailable', `${name} is neither empty nor a copy of this database`)
    }
    if (isMarked && copied !== '' && JSON.parse(copied)[0] !== source) {
      throw new Fault('unavailable', `${name} is a copy of another database`)
    }
    tables = new Map((await readTables()).map((table) => [table.name, table]))
    if (copied === mark && !isBehind) {
      const last = (await there(lastEntrySql))[0]
      const seq = Number(last?.[0] ?? 0)
      // A file that was restored has other entries under the numbers that the copy has seen.
      if (seq === 0 || sameEntry(last, await entryHere(seq))) return seq
    }
    return await rebuild(mark, schema, stored)
  }

  const readTables = async (): Promise<Table[]> => {
    const all = (await here(tablesSql)).map(([one]) => String(one))
    // What is not in the log is not shipped: nobody reads it there.
    const names = all.filter((one) => !systemTables.has(one))
    return await Promise.all(
      names.map(async (table) => {
        const info = await here(`select name, type, pk from pragma_table_info(${text(table)})`)
        const keyed = info.filter(([, , pk]) => Number(pk) > 0)
        if (keyed.length === 0) {
          throw new Fault('unavailable', `table ${table} has no primary key and cannot be shipped`)
        }
        return {
          name: table,
          columns: info.map(([column]) => String(column)),
          key: keyed
            .toSorted((a, b) => Number(a[2]) - Number(b[2]))
            .map(([column]) => String(column)),
          blobs: new Set(
            info.filter(([, type]) => /blob/i.test(String(type))).map(([c]) => String(c)),
          ),
        }
      }),
    )
  }

  const rebuild = async (
    mark: string,
    schema: readonly RawRow[],
    stored: readonly string[],
  ): Promise<number> => {
    log.info('store.copy_started', { replica: name })
    const seq = await newest()
    needed = seq
    await make([
      ...stored.map((table) => `drop table ${quote(table)}`),
      'create table belfry_copy (mark text not null)',
      `insert into belfry_copy values (${text(JSON.stringify([JSON.parse(mark)[0], '']))})`,
      ...schema.map(([sql]) => String(sql)),
    ])
    for (const table of tables?.values() ?? []) await copyTable(table)
    // What changed meanwhile; only then it is a copy.
    let applied = seq
    for (const upTo = await newest(); applied < upTo;) applied = await shipUntil(applied, upTo)
    isBehind = false
    const marked = { sql: 'update belfry_copy set mark = ?', params: [mark] }
    const last = applied > 0 ? await entryHere(applied) : undefined
    await send([...(last ? seqOps(last as unknown as LogEntry) : []), marked])
    log.info('store.copy_made', { replica: name, seq: applied })
    return applied
  }

  const copyTable = async (table: Table): Promise<void> => {
    const list = table.key.map(quote).join(', ')
    const at = table.key.map((column) => table.columns.indexOf(column))
    let last: readonly unknown[] | undefined
    for (;;) {
      const beyond = last ? `where (${list}) > (${table.key.map(() => '?').join(', ')})` : ''
      const rows = await here(
        `select ${table.columns.map(quote).join(', ')} from ${quote(table.name)} ${beyond} order by ${list} limit ${rowsPerPage}`,
        last ?? [],
      )
      if (rows.length === 0) return
      await send(rows.map((row) => upsertOf(table, row)))
      last = at.map((one) => rows.at(-1)?.[one])
      if (rows.length < rowsPerPage) return
    }
  }

  const shipUntil = async (from: number, upTo: number): Promise<number> => {
    let seq = from
    for (let step = 0; seq < upTo && step < stepsPerCall; step++) {
      const entries = (await entriesHere(seq)) as unknown as LogEntry[]
      const [first] = entries
      const last = entries.at(-1)
      if (!first || !last) return seq
      if (first[0] > seq + 1) {
        isBehind = true
        throw new Fault('unavailable', `${name} is behind the log that is kept: it is copied anew`)
      }
      await send([...entries.flatMap(opsOf), ...seqOps(last)])
      ;[seq] = last
      needed = seq
    }
    return seq
  }

  const opsOf = ([, , name_, data]: LogEntry): Query[] => {
    const table = tables?.get(name_)
    if (!table) return []
    const { op, row } = JSON.parse(data) as { op: string; row: Record<string, unknown> }
    const values = table.columns.map((column) =>
      table.blobs.has(column) && typeof row[column] === 'string'
        ? Buffer.from(row[column], 'hex')
        : (row[column] ?? null),
    )
    return [op === 'remove' ? deleteOf(table, row) : upsertOf(table, values)]
  }

  const advance = async (): Promise<number> => {
    try {
      if (!tables) reached = await connect()
      const before = reached
      needed = reached
      reached = await shipUntil(reached, await newest())
      // With nothing to ship it is asked whether it is there at all, and still what it was.
      if (reached === before && Number((await there(selectSeq))[0]?.[0]) !== reached) {
        throw new Fault('unavailable', `${name} is not as it was left`)
      }
      return reached
    } catch (thrown) {
      // What is over there now is looked at again, before anything more is sent.
      tables = undefined
      // It may be away for long: then it is for the log's limits to say what it finds.
      needed = Infinity
      throw thrown
    }
  }

  return {
    advance,
    neededAfter: () => needed,
    async stop() {
      isStopped = true
      await thread?.stop()
    },
  }
}

const lastEntrySql = 'select seq, at, subject from log order by seq desc limit 1'

function sameEntry(a: RawRow | undefined, b: RawRow | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

const tablesSql =
  "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' and name not like 'libsql_%'"

/** Tables before their indexes; no triggers: what they write is what is shipped. */
const schemaSql =
  "select sql from sqlite_schema where type in ('table', 'index') and sql is not null " +
  "and name not like 'sqlite_%' and name not like 'libsql_%' order by type desc, name"

/** `or replace`, because another row may still hold what is unique; its own entry comes. */
function upsertOf({ name, columns }: Table, row: RawRow): Query {
  const sql = `insert or replace into ${quote(name)} (${columns.map(quote).join(', ')}) values (${columns.map(() => '?').join(', ')})`
  return { sql, params: row }
}

function deleteOf({ name, key }: Table, row: Readonly<Record<string, unknown>>): Query {
  const isRow = key.map((column) => `${quote(column)} is ?`).join(' and ')
  return { sql: `delete from ${quote(name)} where ${isRow}`, params: key.map((one) => row[one]) }
}

/** The copy's log holds its last entry, which says how far it is. */
function seqOps([seq, atMs, table]: LogEntry): Query[] {
  return [
    {
      sql: "insert or replace into log (seq, at, kind, subject, tags, data) values (?, ?, 'row', ?, '[]', '{}')",
      params: [seq, atMs, table],
    },
    { sql: 'delete from log where seq < ?', params: [seq] },
  ]
}
