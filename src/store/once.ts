/**
 * Doing something once: a key that the caller chose is stored in the same transaction as what was done under
 * it, with the result. The same key again finds it taken, changes nothing, and gets the first result.
 *
 * After the draft of the IETF's httpapi group, `Idempotency-Key`: another request under the same key is
 * refused. Keys are forgotten after 24 h.
 */
import { Fault } from '../fault.ts'
import type { Query, RawRow, Write } from './messages.ts'

export interface Once {
  /** Whose key it is, and for what: keys of different scopes never meet. */
  readonly scope: string
  readonly key: string
  /** Of what was asked, any JSON value. */
  readonly request: unknown
}

export const keyLengthMax = 255
const keptMs = 24 * 60 * 60 * 1000

/** In one statement: other writers wait for it. */
const forgottenAtOnce = 500

/** Faults: `invalid`. */
export function checkKey(key: string): string {
  if (key.length >= 1 && key.length <= keyLengthMax && /^[\x21-\x7e]+$/.test(key)) return key
  throw new Fault('invalid', 'the idempotency key is not valid', {
    fields: [
      {
        field: 'idempotency-key',
        message: `must be 1 to ${keyLengthMax} visible ASCII characters`,
      },
    ],
  })
}

/** Fails, in a transaction, if the key is taken. */
export function claim({ scope, key, request }: Once, nowMs: number): Write {
  return [
    {
      sql: 'delete from idempotency where scope = ? and key = ? and at < ?',
      params: [scope, key, oldBefore(nowMs)],
    },
    {
      sql: 'insert into idempotency (scope, key, fingerprint, at) values (?, ?, ?, ?)',
      params: [scope, key, fingerprint(request), nowMs],
    },
  ]
}

/** Keeps what the statement before it logged: `{"seq":…,"entry":{"op":…,"row":{…}}}`. */
export function keepLogged({ scope, key }: Once): Query {
  const entry = `select json_object('seq', seq, 'entry', json(data)) from log order by seq desc limit 1`
  return {
    sql: `update idempotency set data = (${entry}) where scope = ? and key = ?`,
    params: [scope, key],
  }
}

export function keep({ scope, key }: Once, result: unknown): Query {
  return {
    sql: 'update idempotency set data = ? where scope = ? and key = ?',
    params: [result === undefined ? null : JSON.stringify(result), scope, key],
  }
}

/** Whether a write failed because its key is taken. */
export function isTaken(thrown: unknown): boolean {
  return (
    thrown instanceof Fault &&
    thrown.cause instanceof Error &&
    thrown.cause.message.includes('idempotency.scope')
  )
}

export type Execute = (query: Query) => Promise<readonly RawRow[]>

/** The first result, or undefined if there is none. Faults: `reused`. */
export async function firstResult(
  execute: Execute,
  { scope, key, request }: Once,
  nowMs: number,
): Promise<{ readonly data: unknown } | undefined> {
  const [row] = await execute({
    sql: 'select fingerprint, data from idempotency where scope = ? and key = ? and at >= ?',
    params: [scope, key, oldBefore(nowMs)],
  })
  if (!row) return undefined
  if (row[0] !== fingerprint(request)) {
    throw new Fault('reused', 'the idempotency key was used for another request')
  }
  const [, data] = row
  return { data: typeof data === 'string' ? (JSON.parse(data) as unknown) : undefined }
}

/** Keys from before are forgotten. */
export function oldBefore(nowMs: number): number {
  return nowMs - keptMs
}

/** Some of those that are old. */
export function forgetOld(nowMs: number): Query {
  const old = `select scope, key from idempotency where at < ? limit ${forgottenAtOnce}`
  const sql = `delete from idempotency where (scope, key) in (${old})`
  return { sql, params: [oldBefore(nowMs)] }
}

function fingerprint(request: unknown): string {
  const text = JSON.stringify(request ?? null)
  return new Bun.CryptoHasher('sha256').update(text).digest('base64url')
}
