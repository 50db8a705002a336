/**
 * What durable topics are kept in: two tables of Belfry's own that no trigger watches, so that a publication
 * is not in the log of changes as well.
 *
 * Invariant: a topic's offsets have no hole and never go back. `append` says from where it counts; if the
 * database knows better, nothing is written. So of two nodes, or of a commit that was cut off and happened
 * after all, one comes first and the other learns of it.
 */
import { Fault } from '../fault.ts'
import type { Query, RawRow } from './messages.ts'
import type { Store } from './store.ts'

export interface StoredPublication {
  readonly offset: number
  /** ms since 1970; never less than that of the one before. */
  readonly atMs: number
  /** JSON text. */
  readonly data: string
}

/** A change of the log, and by whom it is told: a collection, of which several may have one table. */
export interface Telling {
  readonly seq: number
  readonly by: string
}

/** With the newest change that is told on the topic, as its number in the log: 0 for none. */
export interface WithChange {
  readonly seq: number
}

export interface StoredTopic extends WithChange {
  /** Of the last publication; 0 before the first. */
  readonly offset: number
  readonly atMs: number
  /** The newest, oldest first, without a hole. */
  readonly publications: readonly StoredPublication[]
}

export interface Appended {
  readonly topic: string
  /** In order, from the offset after the last one known. */
  readonly publications: readonly StoredPublication[]
  /** Which changes they tell: each is told once on a topic. */
  readonly changes?: readonly Telling[] | undefined
  /** Changes before this one are forgotten: nobody brings them any more. */
  readonly forgetChanges?: number | undefined
}

/** What goes: everything up to this offset, and everything from before this time. */
export interface Pruned {
  readonly topic: string
  readonly upTo: number
  readonly beforeMs: number
}

export interface StoredRange {
  readonly sinceMs: number
  /** Exclusive. */
  readonly untilMs: number
  /** Exclusive: later ones, or earlier ones when reversed. */
  readonly after: number | undefined
  readonly limit: number
  readonly reverse: boolean
}

export interface After extends WithChange {
  readonly publications: readonly StoredPublication[]
}

export interface Publications {
  /** Changes when a backup is put back: offsets then have gone back. After the store's start. */
  identity(): string
  /** Whether other nodes publish to the same topics. */
  readonly isShared: boolean
  /** How far these topics are, those that were ever published to. */
  offsets(topics: readonly string[]): Promise<ReadonlyMap<string, number>>
  /** How far the topic is, and of its newest `max` publications what is younger and fits. */
  load(topic: string, max: number, sinceMs: number): Promise<StoredTopic>
  /** Those after an offset, in order. */
  after(topic: string, offset: number): Promise<After>
  /** Which of these changes are told on the topic, by `tellingKey`. */
  told(topic: string, changes: readonly Telling[]): Promise<Set<string>>
  /** All or none, in one commit. `moved`: one of the topics is further than that, or has told one of the changes. */
  append(topics: readonly Appended[], pruned: readonly Pruned[]): Promise<'appended' | 'moved'>
  /** In order of offset. */
  range(topic: string, range: StoredRange): Promise<readonly StoredPublication[]>
  prune(pruned: readonly Pruned[]): Promise<void>
  /** In order of their names, with the time of the oldest publication kept; undefined for none. */
  names(
    after: string,
    max: number,
  ): Promise<readonly { readonly topic: string; readonly oldestMs: number | undefined }[]>
}

/** Of one answer: a sqld refuses to give 10 MB. Older ones stay where they are. */
export const loadBytesMax = 4_000_000

export function createPublications(
  store: Pick<Store, 'identity' | 'read' | 'write'>,
  options: { readonly isShared: boolean },
): Publications {
  const read = (query: Query) => store.read(query, { from: 'primary' })

  return {
    identity: store.identity,
    isShared: options.isShared,
    async offsets(topics) {
      const params = [JSON.stringify(topics)]
      const rows = await read({ name: 'topic offsets', sql: selectOffsets, params })
      return new Map(rows.map(([name, offset]) => [String(name), Number(offset)]))
    },
    async load(topic, max, sinceMs) {
      const rows = await read({
        name: 'load topic',
        sql: selectTopic,
        params: [topic, sinceMs, max, scopeOf(topic)],
      })
      const [first] = rows
      if (!first) return { offset: 0, atMs: 0, seq: 0, publications: [] }
      const [offset, atMs, seq] = first.map(Number) as [number, number, number]
      return { offset, atMs, seq, publications: newestOf(rows, offset) }
    },
    async after(topic, offset) {
      const params = [topic, offset, scopeOf(topic)]
      const rows = await read({ name: 'topic after', sql: selectAfter, params })
      return { publications: rows.map(publicationOf), seq: Number(rows[0]?.[3] ?? 0) }
    },
    async told(topic, changes) {
      const params = [scopeOf(topic), JSON.stringify(changes.map(tellingKey))]
      const rows = await read({ name: 'topic told', sql: selectTold, params })
      return new Set(rows.map(([key]) => String(key)))
    },
    async append(topics, pruned) {
      const counted = topics.map(({ topic, publications }) => {
        const last = publications.at(-1)
        return [topic, (publications[0]?.offset ?? 1) - 1, last?.offset ?? 0, last?.atMs ?? 0]
      })
      const rows = topics.flatMap(({ topic, publications }) =>
        publications.map(({ offset, atMs, data }) => [topic, offset, atMs, data]),
      )
      try {
        await store.write([
          { sql: countOn, params: [JSON.stringify(counted)] },
          { sql: insertAll, params: [JSON.stringify(rows)] },
          ...claimsOf(topics),
          ...pruneOf(pruned),
        ])
        return 'appended'
      } catch (thrown) {
        if (isMoved(thrown)) return 'moved'
        throw thrown
      }
    },
    async range(topic, { sinceMs, untilMs, after, limit, reverse }) {
      const edge = after ?? (reverse ? Number.MAX_SAFE_INTEGER : 0)
      const rows = await read({
        name: reverse ? 'topic range reversed' : 'topic range',
        sql: reverse ? selectRangeReversed : selectRange,
        params: [topic, sinceMs, untilMs, edge, limit],
      })
      return rows.map(publicationOf)
    },
    async prune(pruned) {
      if (pruned.length > 0) await store.write(pruneOf(pruned))
    },
    async names(after, max) {
      const rows = await read({ name: 'topic names', sql: selectNames, params: [after, max] })
      return rows.map(([topic, oldest]) => ({
        topic: String(topic),
        oldestMs: oldest === null ? undefined : Number(oldest),
      }))
    },
  }
}

/**
 * Where the topic is not where the writer thinks, its offset becomes null, which the table refuses: the whole
 * write is undone. A comparison in the statement, because another node may be in between.
 */
const countOn = `insert into belfry_topics (name, "offset", at)
select name, iif(coalesce((select t."offset" from belfry_topics t where t.name = given.name), 0) = base, top, null), at
from (select value ->> 0 as name, value ->> 1 as base, value ->> 2 as top, value ->> 3 as at from json_each(?)) as given
where true on conflict (name) do update set "offset" = excluded."offset", at = excluded.at`

const insertAll = `insert into belfry_publications (topic, "offset", at, data)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?)`

function isMoved(thrown: unknown): boolean {
  return (
    thrown instanceof Fault &&
    thrown.cause instanceof Error &&
    /belfry_(topics\.offset|publications\.topic)|idempotency\.scope/.test(thrown.cause.message)
  )
}

/**
 * That a change is told on a topic is a key like any that makes something be done once (`once.ts`), and what nobody
 * forgets before goes with those after a day.
 */
function claimsOf(topics: readonly Appended[]): Query[] {
  return topics.flatMap(({ topic, publications, changes = [], forgetChanges }) => {
    if (changes.length === 0) return []
    const scope = scopeOf(topic)
    const keys = JSON.stringify(changes.map(tellingKey))
    const claims = [{ sql: insertTold, params: [scope, publications[0]?.atMs ?? 0, keys] }]
    if (forgetChanges === undefined) return claims
    return [...claims, { sql: forgetTold, params: [scope, numberOf(forgetChanges)] }]
  })
}

function scopeOf(topic: string): string {
  return `topics: ${topic}`
}

/** In the order of the numbers. */
export function tellingKey({ seq, by }: Telling): string {
  return `${numberOf(seq)} ${by}`
}

function numberOf(seq: number): string {
  return String(seq).padStart(16, '0')
}

const insertTold = `insert into idempotency (scope, key, fingerprint, at)
select ?1, value, '', ?2 from json_each(?3)`

const forgetTold = `delete from idempotency where scope = ? and key < ?`

const selectTold = `select key from idempotency where scope = ? and key in (select value from json_each(?))`

function newestTold(scope: string): string {
  return `(select cast(max(key) as integer) from idempotency where scope = ${scope})`
}

/** Two statements, not one with `or`: each walks an index from its beginning to where it ends. */
function pruneOf(pruned: readonly Pruned[]): Query[] {
  if (pruned.length === 0) return []
  const params = [JSON.stringify(pruned.map((one) => [one.topic, one.upTo, one.beforeMs]))]
  return [
    { sql: pruneBy('p."offset" <= value ->> 1'), params },
    { sql: pruneBy('p.at < value ->> 2'), params },
  ]
}

function pruneBy(condition: string): string {
  return `delete from belfry_publications where (topic, "offset") in (
  select p.topic, p."offset" from json_each(?)
  cross join belfry_publications p on p.topic = value ->> 0 and ${condition})`
}

const selectTopic = `select t."offset", t.at, ${newestTold('?4')}, p."offset", p.at, p.data from belfry_topics t
left join (
  select *, sum(bytes) over (order by "offset" desc) as sofar from (
    select "offset", at, data, length(cast(data as blob)) as bytes from belfry_publications
    where topic = ?1 and at > ?2 order by "offset" desc limit ?3
  )
) p on p.sofar <= ${loadBytesMax}
where t.name = ?1 order by p."offset" desc`

const selectOffsets = `select t.name, t."offset" from json_each(?) cross join belfry_topics t on t.name = value`

const selectAfter = `select "offset", at, data, ${newestTold('?3')} from (
  select *, sum(bytes) over (order by "offset") - bytes as before from (
    select "offset", at, data, length(cast(data as blob)) as bytes from belfry_publications
    where topic = ?1 and "offset" > ?2 order by "offset" limit 10000
  )
) where before < ${loadBytesMax} order by "offset"`

const selectRange = rangeSql('p."offset" > ?4', '')
const selectRangeReversed = rangeSql('p."offset" < ?4', ' desc')

/** By time first, which is the order of the offsets, too. */
function rangeSql(edge: string, direction: string): string {
  return `select "offset", at, data from (
  select *, sum(bytes) over (order by "offset"${direction}) - bytes as before from (
    select p."offset", p.at, p.data, length(cast(p.data as blob)) as bytes from belfry_publications p
    where p.topic = ?1 and p.at >= ?2 and p.at < ?3 and ${edge}
    order by p.at${direction}, p."offset"${direction} limit ?5
  )
) where before < ${loadBytesMax} order by "offset"${direction}`
}

const selectNames = `select name, (select min(at) from belfry_publications where topic = name)
from belfry_topics where name > ? order by name limit ?`

/** Newest first, from the topic's last one on, until one is missing; turned round. */
function newestOf(rows: readonly RawRow[], top: number): StoredPublication[] {
  const found: StoredPublication[] = []
  for (const [, , , ...row] of rows) {
    if (row[0] === null || Number(row[0]) !== top - found.length) break
    found.push(publicationOf(row))
  }
  return found.reverse()
}

function publicationOf([offset, at, data]: RawRow): StoredPublication {
  return { offset: Number(offset), atMs: Number(at), data: String(data) }
}
