/**
 * API keys for other servers: each with a name, scopes and an end, shown once and stored as a hash.
 *
 *   bfk_<id>_<secret> ─► the record of the id, in memory ─ SHA-256 of the whole key is its hash? not over? ─► identity
 *
 *   create, revoke ─► table and log, one transaction ─► every node hears it from the log, and closes who came in by it
 *
 * A secret has 256 random bits: nothing slower than SHA-256 would make guessing it any harder. When a key was used
 * last is written to the minute, behind the requests. Scopes:
 *
 *   admin             everything, as API_KEY
 *   publish:chat:*    publish to topics whose names are like this; a `*` stands for any characters
 *   read:*            their history, presence and names
 */
import { timingSafeEqual } from 'node:crypto'
import { Fault, type FieldProblem } from '../fault.ts'
import type { Cancel, Clock } from '../lib/clock.ts'
import { detach } from '../lib/service.ts'
import { isLike } from '../lib/like.ts'
import type { Log } from '../observe/log.ts'
import type { Notice, Store } from '../store/store.ts'
import type { Identity } from './auth.ts'

/** As an operator sees it. */
export interface ApiKey {
  readonly id: string
  readonly name: string
  readonly scopes: readonly string[]
  readonly createdMs: number
  readonly expiresMs?: number | undefined
  /** To the minute. */
  readonly usedMs?: number | undefined
  readonly revokedMs?: number | undefined
}

export interface NewApiKey {
  readonly name: string
  readonly scopes: readonly string[]
  /** Absent: it does not end. */
  readonly ttlMs?: number | undefined
}

export type KeyAct = 'publish' | 'read' | 'write'

export interface ApiKeys {
  /** Undefined: it is none of these, or it counts no more. */
  identify(key: string): Identity | undefined
  /** `key` is told this once. Faults: `invalid`, `unavailable`. */
  create(wanted: NewApiKey): Promise<ApiKey & { readonly key: string }>
  /** All there ever were, oldest first. */
  list(): Promise<readonly ApiKey[]>
  /** Faults: `not_found`. */
  revoke(id: string): Promise<void>
  /** With the id of each that counts no more from now on. Must not throw. */
  onRevoked(listener: (id: string) => void): void
  /** From the log. */
  hear(notice: Notice): void
  load(): Promise<void>
  start(): void
  stop(): Promise<void>
}

export interface ApiKeyDeps {
  readonly clock: Clock
  readonly log: Pick<Log, 'warn'>
  readonly store?: Pick<Store, 'read' | 'write' | 'note'> | undefined
}

interface Stored {
  readonly id: string
  readonly hash: string
  readonly scopes: readonly string[]
  readonly expiresMs: number | null
  readonly revokedMs: number | null
}

interface Kept extends Stored {
  readonly digest: Buffer
  readonly identity: Identity
  usedMs: number
}

const keyNotice = 'key'
/** In use. */
const keysMax = 10_000
const scopesMax = 100
const nameLengthMax = 100
const usedEveryMs = 60_000

const pattern = /^bfk_([0-9a-f]{16})_[\w-]{43}$/
const scopePattern = /^(?:admin|(?:publish|read|write):[^\s]{1,255})$/

export function createApiKeys({ clock, log, store }: ApiKeyDeps): ApiKeys {
  const known = new Map<string, Kept>()
  /** Used since it was last written down. */
  const used = new Set<Kept>()
  const listeners: ((id: string) => void)[] = []
  let cancel: Cancel = () => {}

  const add = (one: Stored): void => {
    const before = known.get(one.id)
    known.set(one.id, {
      ...one,
      // Whoever hears the two in another order has it revoked all the same.
      revokedMs: one.revokedMs ?? before?.revokedMs ?? null,
      digest: Buffer.from(one.hash, 'hex'),
      identity: identityOf(one),
      usedMs: before?.usedMs ?? -Infinity,
    })
    // One that was revoked before it was known here let nobody in.
    if (before?.revokedMs !== null || one.revokedMs === null) return
    for (const listener of listeners) listener(one.id)
  }

  const isInUse = ({ revokedMs, expiresMs }: Kept): boolean =>
    revokedMs === null && (expiresMs === null || clock.now() < expiresMs)

  const writeUsed = async (): Promise<void> => {
    if (!store || used.size === 0) return
    const sql = 'update belfry_keys set used = max(coalesce(used, 0), ?) where id = ?'
    const ops = [...used].map(({ id, usedMs }) => ({ sql, params: [usedMs, id] }))
    used.clear()
    await store.write(ops)
  }

  const need = (): NonNullable<typeof store> => {
    if (store) return store
    throw new Fault('unavailable', 'there are no API keys here: there is no store')
  }

  return {
    identify(key) {
      const id = pattern.exec(key)?.[1]
      const one = id === undefined ? undefined : known.get(id)
      if (!one || !timingSafeEqual(sha256(key), one.digest)) return undefined
      if (!isInUse(one)) return undefined
      const now = clock.now()
      if (now - one.usedMs >= usedEveryMs) {
        one.usedMs = now
        used.add(one)
      }
      return one.identity
    },
    async create(wanted) {
      check(wanted)
      const inUse = [...known.values()].filter(isInUse).length
      if (inUse >= keysMax) throw new Fault('unavailable', `more than ${keysMax} API keys`)
      const { name, scopes, ttlMs } = wanted
      const id = randomBytes(8).toString('hex')
      const key = `bfk_${id}_${randomBytes(32).toString('base64url')}`
      const createdMs = clock.now()
      const expiresMs = ttlMs === undefined ? null : createdMs + ttlMs
      const hash = sha256(key).toString('hex')
      const sql = `insert into belfry_keys (id, hash, name, scopes, created, expires) values (?, ?, ?, ?, ?, ?)`
      const params = [id, hash, name, JSON.stringify(scopes), createdMs, expiresMs]
      const data: Stored = { id, hash, scopes, expiresMs, revokedMs: null }
      await need().note({ kind: keyNotice, data }, [{ sql, params }])
      return { key, id, name, scopes, createdMs, ...(expiresMs === null ? {} : { expiresMs }) }
    },
    async list() {
      await writeUsed()
      const sql = `select id, name, scopes, created, expires, used, revoked from belfry_keys order by created, id`
      const rows = await need().read({ sql, params: [] }, { from: 'primary' })
      return rows.map(([id, name, scopes, created, expires, usedAt, revoked]) => ({
        id: String(id),
        name: String(name),
        scopes: JSON.parse(String(scopes)) as string[],
        createdMs: Number(created),
        ...(expires === null ? {} : { expiresMs: Number(expires) }),
        ...(usedAt === null ? {} : { usedMs: Number(usedAt) }),
        ...(revoked === null ? {} : { revokedMs: Number(revoked) }),
      }))
    },
    async revoke(id) {
      const one = known.get(id)
      if (!one) throw new Fault('not_found', `there is no API key ${id}`)
      const revokedMs = one.revokedMs ?? clock.now()
      const { hash, scopes, expiresMs } = one
      const data: Stored = { id, hash, scopes, expiresMs, revokedMs }
      const sql = 'update belfry_keys set revoked = ? where id = ?'
      await need().note({ kind: keyNotice, data }, [{ sql, params: [revokedMs, id] }])
    },
    onRevoked: (listener) => void listeners.push(listener),
    hear({ kind, data }) {
      if (kind === keyNotice && isStored(data)) add(data)
    },
    async load() {
      const sql = 'select id, hash, scopes, expires, revoked, used from belfry_keys'
      const rows = (await store?.read({ sql, params: [] }, { from: 'primary' })) ?? []
      for (const [id, hash, scopes, expiresMs, revokedMs] of rows) {
        const one = {
          id,
          hash,
          scopes: JSON.parse(String(scopes)) as unknown,
          expiresMs,
          revokedMs,
        }
        if (isStored(one)) add(one)
      }
    },
    start() {
      cancel()
      cancel = clock.every(usedEveryMs, () => {
        detach(writeUsed(), (error) => log.warn('auth.keys_use_not_written', { error }))
      })
    },
    async stop() {
      cancel()
      await writeUsed().catch((error: unknown) => log.warn('auth.keys_use_not_written', { error }))
    },
  }
}

/** Faults: `invalid`. */
function check({ name, scopes }: NewApiKey): void {
  const fields: FieldProblem[] = []
  if (name === '' || name.length > nameLengthMax) {
    fields.push({ field: 'name', message: `must be 1 to ${nameLengthMax} characters` })
  }
  if (scopes.length === 0 || scopes.length > scopesMax) {
    fields.push({ field: 'scopes', message: `must be 1 to ${scopesMax}` })
  }
  for (const scope of scopes) {
    if (scopePattern.test(scope)) continue
    const message = `${scope} is none of admin, publish:<topics>, read:<topics> and write:<collections>, like publish:chat:*`
    fields.push({ field: 'scopes', message })
  }
  if (fields.length > 0) throw new Fault('invalid', 'the API key is not valid', { fields })
}

function identityOf({ id, scopes, expiresMs }: Stored): Identity {
  const expiresAtMs = expiresMs ?? undefined
  if (scopes.includes('admin')) return { kind: 'key', user: null, key: id, expiresAtMs }
  const patterns = {
    publish: patternsOf(scopes, 'publish'),
    read: patternsOf(scopes, 'read'),
    write: patternsOf(scopes, 'write'),
  }
  return {
    kind: 'scoped',
    user: null,
    key: id,
    expiresAtMs,
    may: (act, name) => patterns[act].some((parts) => isLike(name, parts)),
  }
}

function patternsOf(scopes: readonly string[], act: KeyAct): string[][] {
  const own = scopes.filter((scope) => scope.startsWith(`${act}:`))
  return own.map((scope) => scope.slice(act.length + 1).split('*'))
}

function isStored(value: unknown): value is Stored {
  if (typeof value !== 'object' || value === null) return false
  const { id, hash, scopes, expiresMs, revokedMs } = value as Partial<Record<keyof Stored, unknown>>
  const isTime = (ms: unknown): boolean => ms === null || typeof ms === 'number'
  return (
    typeof id === 'string' &&
    typeof hash === 'string' &&
    /^[0-9a-f]{64}$/.test(hash) &&
    Array.isArray(scopes) &&
    scopes.every((scope) => typeof scope === 'string') &&
    isTime(expiresMs) &&
    isTime(revokedMs)
  )
}

function randomBytes(count: number): Buffer {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(count)))
}

/** Of equal length whatever is given, as a constant-time compare needs. */
export function sha256(text: string): Buffer {
  return new Bun.CryptoHasher('sha256').update(text).digest()
}
