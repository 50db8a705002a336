/**
 * Tokens that count no more although their signature is good: one of them (`jti`), those of a session (`sid`), or
 * all that a user was issued up to a time.
 *
 *   revoke ─► table and log, one transaction ─► every node hears it from the log ─► `has` says so, `revision` grows
 *   start, or a gap in the log ─► the table
 *
 * Invariant: whoever awaits `revoke` finds this node knowing it, and its listeners told; other nodes know it as soon
 * as they know of any write. What was said once stays said: entries are only added, and times only grow.
 */
import { Fault } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import type { Log } from '../observe/log.ts'
import { noticesOf, type Notice, type Query, type Store, type Write } from '../store/store.ts'
import { forgetOver } from './forget.ts'

export interface Revocation {
  readonly kind: 'token' | 'session' | 'user'
  /** A `jti`, a `sid`, a `sub`. */
  readonly id: string
  /** Of a user: tokens issued up to then. Of others: when it was said. */
  readonly atMs: number
  /** When the token is over and this may be forgotten. Absent: never. */
  readonly untilMs?: number | undefined
}

/** What of a token can be revoked. */
export interface Marks {
  readonly user: string
  readonly token: string | undefined
  readonly session: string | undefined
  /** Undefined: it does not say, and so is older than any time. */
  readonly issuedAtMs: number | undefined
}

export function marksOf(claims: Readonly<Record<string, unknown>>, user: string): Marks {
  const { jti, sid, iat } = claims
  return {
    user,
    token: nameOf(jti),
    session: nameOf(sid),
    issuedAtMs: typeof iat === 'number' ? iat * 1000 : undefined,
  }
}

function nameOf(claim: unknown): string | undefined {
  return typeof claim === 'string' || typeof claim === 'number' ? String(claim) : undefined
}

export interface Revocations {
  /** Another one whenever something was revoked. */
  readonly revision: number
  readonly size: number
  has(marks: Marks): boolean
  /** `alongside`: what is written with it. Faults: `unavailable` if it cannot be written down. */
  revoke(revocation: Revocation, alongside?: Write): Promise<void>
  /** From the log. */
  hear(notice: Notice): void
  /** Of each that was not known; also of those that come from the table. Must not throw. */
  onRevoked(listener: (revocation: Revocation) => void): void
  /** All that is written down. After the store's start, and when entries of the log are gone. */
  load(): Promise<void>
  start(): void
  stop(): void
}

export interface RevocationDeps {
  readonly clock: Clock
  readonly log: Pick<Log, 'info' | 'warn'>
  /** Absent: nothing can be revoked. */
  readonly store?: Pick<Store, 'read' | 'write' | 'note'> | undefined
}

export const revocationNotice = 'revoked'

/** 150 bytes each. */
const revocationsMax = 1_000_000

/** Rows of one read, so that no turn of the event loop takes long. */
const pageRows = 5_000

const forgetEveryMs = 60 * 60_000

export function createRevocations({ clock, log, store }: RevocationDeps): Revocations {
  /** By id; what `untilMs` and `atMs` are for is in `Revocation`. */
  const known = {
    token: new Map<string, Revocation>(),
    session: new Map<string, Revocation>(),
    user: new Map<string, Revocation>(),
  }
  const listeners: ((revocation: Revocation) => void)[] = []
  let revision = 0
  let cancel: Cancel = () => {}

  const size = (): number => known.token.size + known.session.size + known.user.size

  const add = (revocation: Revocation): void => {
    const { kind, id, atMs } = revocation
    const before = known[kind].get(id)
    if (before && kind === 'user' && before.atMs >= atMs) return
    if (before && kind !== 'user') {
      if (endOf(revocation) > endOf(before)) known[kind].set(id, revocation)
      return
    }
    known[kind].set(id, revocation)
    revision++
    for (const listener of listeners) listener(revocation)
  }

  const forget = async (): Promise<void> => {
    const now = clock.now()
    for (const one of [known.token, known.session]) {
      for (const [id, revocation] of one) if (endOf(revocation) < now) one.delete(id)
    }
    if (store)
      await forgetOver(store, { table: 'belfry_revocations', id: 'id', over: 'until' }, now)
  }

  return {
    get revision() {
      return revision
    },
    get size() {
      return size()
    },
    has({ user, token, session, issuedAtMs = -Infinity }) {
      if (token !== undefined && known.token.has(token)) return true
      if (session !== undefined && known.session.has(session)) return true
      const upTo = known.user.get(user)?.atMs
      return upTo !== undefined && issuedAtMs <= upTo
    },
    async revoke(revocation, alongside = []) {
      if (!store) throw new Fault('unavailable', 'nothing can be revoked here: there is no store')
      if (size() >= revocationsMax) {
        throw new Fault('unavailable', `more than ${revocationsMax} revocations`, {
          hint: 'revoke by user, or say when tokens expire so that they can be forgotten',
        })
      }
      const { kind, id, atMs, untilMs = null } = revocation
      const sql = `insert into belfry_revocations (kind, id, at, until) values (?, ?, ?, ?) ${orLonger}`
      await store.note({ kind: revocationNotice, data: revocation }, [
        { sql, params: [kind, id, atMs, untilMs] },
        ...alongside,
      ])
    },
    hear({ kind, data }) {
      if (kind === revocationNotice && isRevocation(data)) add(data)
    },
    onRevoked: (listener) => void listeners.push(listener),
    async load() {
      let [lastKind, lastId] = ['', '']
      for (;;) {
        const sql = `select kind, id, at, until from belfry_revocations where (kind, id) > (?, ?)
          order by kind, id limit ${pageRows}`
        const rows = await store?.read({ sql, params: [lastKind, lastId] }, { from: 'primary' })
        for (const [kind, id, atMs, until] of rows ?? []) {
          const untilMs = until === null ? undefined : until
          const one = { kind, id, atMs, untilMs }
          if (isRevocation(one)) add(one)
          ;[lastKind, lastId] = [String(kind), String(id)]
        }
        if (!rows || rows.length < pageRows) break
      }
      if (size() > 0) log.info('auth.revocations_loaded', { revocations: size() })
    },
    start() {
      cancel()
      cancel = clock.every(forgetEveryMs, () => {
        detach(forget(), (error) => log.warn('auth.revocations_not_forgotten', { error }))
      })
    },
    stop: () => cancel(),
  }
}

/** What was revoked already stays so for as long as anybody said. */
const orLonger = `on conflict do update set at = max(at, excluded.at),
  until = case when until is null or excluded.until is null then null else max(until, excluded.until) end`

/** Revokes, within a larger write, the sessions that `ids` selects, as one column `id`. */
export function revokeSessions(
  { sql, params }: Query,
  { atMs, untilMs }: { readonly atMs: number; readonly untilMs: number },
): Write {
  const row = `select json_object('kind', 'session', 'id', id, 'atMs', ?, 'untilMs', ?) from (${sql})`
  return [
    {
      sql: `insert into belfry_revocations (kind, id, at, until)
        select 'session', id, ?, ? from (${sql}) where true ${orLonger}`,
      params: [atMs, untilMs, ...params],
    },
    noticesOf(revocationNotice, { sql: row, params: [atMs, untilMs, ...params] }),
  ]
}

function endOf({ untilMs = Infinity }: Revocation): number {
  return untilMs
}

/** What a newer or a broken node wrote is not taken for one. */
function isRevocation(value: unknown): value is Revocation {
  if (typeof value !== 'object' || value === null) return false
  const { kind, id, atMs, untilMs } = value as Partial<Record<keyof Revocation, unknown>>
  return (
    (kind === 'token' || kind === 'session' || kind === 'user') &&
    typeof id === 'string' &&
    typeof atMs === 'number' &&
    (untilMs === undefined || typeof untilMs === 'number')
  )
}
