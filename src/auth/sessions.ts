/**
 * Sessions of accounts: one for each sign-in, each with a family of refresh tokens of which one is good.
 *
 *   bfr_<family>_<secret> ─► the session of the family ─ is it the next one? ─► rotated: now its successor is
 *                                                      ─ the one before?     ─► the same successor again, if it may be lost
 *                                                      ─ any other           ─► it was copied: the session ends
 *
 * A first secret has 256 random bits, a successor is HMAC-SHA256 of the token before it under a key of the database: as
 * hard to guess, and the same whoever asks twice at once. So two tabs that refresh together, or a client whose answer
 * was lost, are given one token and not two; none is stored, their SHA-256 are. Only a holder knows the family, so
 * whoever shows it with a wrong secret holds a used token: which of two holders is the thief cannot be known, and both
 * are signed out. The token before the next one is answered
 *
 *   for 10 s      however often: tabs, and clients that ask again at once
 *   later         once in 24 h, and only while its successor was never used: an answer that was lost on the way. A thief
 *                 who comes after the owner gets one more access token by it, and is found when he comes again.
 *
 * A session and its account are read once and kept for 24 h at most. What is kept never lets anybody in: each rotation
 * is a write under the condition that the database says the same, role and all.
 */
import { timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import {
  onlyIf,
  writeIfMet,
  type Query,
  type RawRow,
  type Store,
  type Write,
} from '../store/store.ts'
import { sha256 } from './api-keys.ts'
import { forgetOver } from './forget.ts'
import { revokeSessions } from './revocations.ts'
import { accessMs, derivedKey } from './signer.ts'
import { accountColumns, accountOf, type Account } from './users.ts'

export const refreshMs = 30 * 24 * 60 * 60_000

const graceMs = 10_000
const lostEveryMs = 24 * 60 * 60_000

/** Of a user. Beyond it the one that was not used for longest ends. */
const sessionsOfUserMax = 50

/** 0.5 KB each. */
const keptMax = 50_000
const keptMs = 24 * 60 * 60_000

/** Access tokens of a session are over by then, also for a server whose clock is behind (`JWT_CLOCK_TOLERANCE`, 5 min). */
const revokedMs = accessMs + 10 * 60_000

/** Each time somebody else was faster. */
const triesMax = 5

export interface Session {
  /** The claim `sid`. */
  readonly id: string
  readonly user: string
}

export type Refreshed =
  | {
      readonly ok: true
      readonly session: Session
      readonly account: Account
      readonly refreshToken: string
    }
  | { readonly ok: false }

export interface Sessions {
  /** A new one: `ops` make it, within a larger write. */
  open(user: string, place: string): Opened
  refresh(refreshToken: string): Promise<Refreshed>
  /** Ends the session of a refresh token, used or not, if there is one. */
  endOf(refreshToken: string): Promise<void>
  /** For a larger write: those of a user end, at once and on every node; but for `except`. */
  endAll(user: string, except?: string): Write
  /** The same of one session. */
  end(id: string): Write
  /** Access tokens that are out end, the sessions go on: clients refresh. */
  renewAll(user: string): Write
  /** What no longer counts. */
  forget(): Promise<void>
}

interface Opened {
  readonly session: Session
  readonly refreshToken: string
  readonly ops: Write
}

export interface SessionDeps {
  readonly clock: Clock
  readonly log: Pick<Log, 'warn'>
  readonly store: Pick<Store, 'read' | 'write' | 'secret'>
}

interface Stored extends Session {
  readonly account: Account
  readonly token: string
  readonly previous: string | null
  readonly rotatedMs: number
  readonly repeatedMs: number | null
  readonly expiresMs: number
}

const pattern = /^bfr_([\w-]{22})_[\w-]{43}$/

export function createSessions({ clock, log, store }: SessionDeps): Sessions {
  const kept = new LRUCache<string, Stored>({
    max: keptMax,
    ttl: keptMs,
    ttlResolution: 0,
    perf: { now: clock.tick },
  })
  let key: Uint8Array | undefined

  const successorOf = (token: string, family: string): string => {
    key ??= derivedKey(store.secret(), 'refresh tokens')
    const secret = new Bun.CryptoHasher('sha256', key).update(token).digest('base64url')
    return `bfr_${family}_${secret}`
  }

  const read = async (familyHash: string): Promise<Stored | undefined> => {
    const sql = `select ${columns} from belfry_sessions s join belfry_users u on u.id = s.user where s.family = ?`
    const [row] = await store.read({ sql, params: [familyHash] }, { from: 'primary' })
    if (!row) {
      kept.delete(familyHash)
      return undefined
    }
    const session = sessionOf(row)
    kept.set(familyHash, session)
    return session
  }

  /** `where`: of belfry_sessions. */
  const endWhere = (where: string, params: readonly unknown[]): Write => {
    const atMs = clock.now()
    const ids = { sql: `select id from belfry_sessions where ${where}`, params }
    return [
      ...revokeSessions(ids, { atMs, untilMs: atMs + revokedMs }),
      { sql: `delete from belfry_sessions where ${where}`, params },
    ]
  }

  /** False: the database says otherwise by now. */
  const writeIf = (condition: Query, ops: Write): Promise<boolean> =>
    writeIfMet(store, [onlyIf(condition.sql, condition.params), ...ops])

  const rotate = async (familyHash: string, session: Stored, next: string): Promise<boolean> => {
    const now = clock.now()
    const token = hashOf(next)
    const { id } = session
    const { role = null, verifiedMs = null } = session.account
    const condition = {
      sql: `exists (select 1 from belfry_sessions s join belfry_users u on u.id = s.user
        where s.id = ? and s.token = ? and s.expires > ? and u.role is ? and u.verified is ? and u.disabled is null)`,
      params: [id, session.token, now, role, verifiedMs],
    }
    const sql = `update belfry_sessions set previous = token, token = ?, rotated = ?, expires = ? where id = ?`
    const params = [token, now, now + refreshMs, id]
    if (!(await writeIf(condition, [{ sql, params }]))) return false
    const expiresMs = now + refreshMs
    kept.set(familyHash, { ...session, token, previous: session.token, rotatedMs: now, expiresMs })
    return true
  }

  const noteRepeat = async (familyHash: string, session: Stored): Promise<boolean> => {
    const { id, token, repeatedMs } = session
    const condition = {
      sql: 'exists (select 1 from belfry_sessions where id = ? and token = ? and repeated is ?)',
      params: [id, token, repeatedMs],
    }
    const sql = 'update belfry_sessions set repeated = ? where id = ?'
    kept.delete(familyHash)
    return await writeIf(condition, [{ sql, params: [clock.now(), id] }])
  }

  const refresh = async (refreshToken: string): Promise<Refreshed> => {
    const family = pattern.exec(refreshToken)?.[1]
    if (family === undefined) return { ok: false }
    const [familyHash, hash] = [hashOf(family), hashOf(refreshToken)]
    const next = successorOf(refreshToken, family)
    const known = kept.get(familyHash)
    let isFresh = known === undefined
    let session = known ?? (await read(familyHash))
    for (let attempt = 1; session && attempt <= triesMax; attempt++) {
      const { id, user, account } = session
      const found = judge(session, hash, clock.now())
      if (
        (found === 'next' && (await rotate(familyHash, session, next))) ||
        (found === 'before' && isFresh) ||
        (found === 'lost' && isFresh && (await noteRepeat(familyHash, session)))
      ) {
        return { ok: true, session: { id, user }, account, refreshToken: next }
      }
      if (isFresh && (found === 'used' || found === 'over')) {
        if (found === 'used') await endUsed(familyHash, session)
        return { ok: false }
      }
      // What was known is old, or somebody else was faster: nobody is refused by that.
      session = await read(familyHash)
      isFresh = true
    }
    return { ok: false }
  }

  const endUsed = async (familyHash: string, { id, user }: Stored): Promise<void> => {
    log.warn('auth.refresh_token_reused', { user, session: id })
    await store.write(endWhere('family = ?', [familyHash]))
  }

  return {
    open(user, place) {
      const now = clock.now()
      const family = randomText(16)
      const refreshToken = `bfr_${family}_${randomText(32)}`
      const id = randomText(16)
      const tooMany = `user = ? and id not in (
        select id from belfry_sessions where user = ? order by rotated desc limit ${sessionsOfUserMax - 1})`
      const sql = `insert into belfry_sessions (id, family, user, token, rotated, place, created, expires)
        values (?, ?, ?, ?, ?, ?, ?, ?)`
      const hashes = [hashOf(family), user, hashOf(refreshToken)]
      return {
        session: { id, user },
        refreshToken,
        ops: [
          ...endWhere(tooMany, [user, user]),
          { sql, params: [id, ...hashes, now, place, now, now + refreshMs] },
        ],
      }
    },
    refresh,
    async endOf(refreshToken) {
      const family = pattern.exec(refreshToken)?.[1]
      if (family !== undefined) await store.write(endWhere('family = ?', [hashOf(family)]))
    },
    endAll: (user, except = '') => endWhere('user = ? and id <> ?', [user, except]),
    end: (id) => endWhere('id = ?', [id]),
    renewAll(user) {
      const atMs = clock.now()
      const ids = { sql: 'select id from belfry_sessions where user = ?', params: [user] }
      // Of the same form, made where the rows are.
      const sql = 'update belfry_sessions set id = lower(hex(randomblob(16))) where user = ?'
      return [...revokeSessions(ids, { atMs, untilMs: atMs + revokedMs }), { sql, params: [user] }]
    },
    async forget() {
      const over = { table: 'belfry_sessions', id: 'id', over: 'expires' }
      await forgetOver(store, over, clock.now())
    },
  }
}

type Found = 'next' | 'before' | 'lost' | 'used' | 'over'

/** What a token of this hash is to its session. */
function judge(session: Stored, hash: string, now: number): Found {
  const { account, token, previous, rotatedMs, repeatedMs, expiresMs } = session
  if (expiresMs <= now || account.disabledMs !== undefined) return 'over'
  if (areEqual(hash, token)) return 'next'
  if (previous === null || !areEqual(hash, previous)) return 'used'
  if (now - rotatedMs <= graceMs) return 'before'
  return repeatedMs === null || now - repeatedMs >= lostEveryMs ? 'lost' : 'used'
}

function areEqual(one: string, other: string): boolean {
  return one.length === other.length && timingSafeEqual(Buffer.from(one), Buffer.from(other))
}

const columns = [
  ...['s.id', 's.token', 's.previous', 's.rotated', 's.repeated', 's.expires'],
  ...accountColumns.map((column) => `u.${column}`),
].join(', ')

function sessionOf(row: RawRow): Stored {
  const [id, token, previous, rotated, repeated, expires, ...rest] = row
  const account = accountOf(rest)
  return {
    id: String(id),
    user: account.id,
    account,
    token: String(token),
    previous: typeof previous === 'string' ? previous : null,
    rotatedMs: Number(rotated),
    repeatedMs: repeated === null ? null : Number(repeated),
    expiresMs: Number(expires),
  }
}

export function hashOf(text: string): string {
  return sha256(text).toString('hex')
}

/** So many random bytes, as base64url. */
export function randomText(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('base64url')
}
