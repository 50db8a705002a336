/**
 * `POST /api/admin/revoke`, for administrators, and the same for the command line: tokens count no more, on every
 * node, and who is connected with one is closed. One of
 *
 *   {"jti":"…"} · {"sid":"…"}, both with "expiresAt": when the token is over and this may be forgotten
 *   {"user":"…"}: all that were issued up to "before", which is now if it is not said
 *
 * Times are ISO 8601 with a zone, or ms since 1970.
 */
import type { Auth, Revocation } from '../auth/auth.ts'
import { timeOf } from '../lib/time.ts'
import { requireAdmin } from './admin.ts'
import { readJson } from './body.ts'
import { readFields, type Fields } from './fields.ts'
import { visitHeaders, type Door } from './visit.ts'

export interface RevokeDeps {
  readonly auth: Pick<Auth, 'revoke'>
  /** `clock.now()`. */
  readonly now: () => number
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** What a claim holds; also of the key in the table. */
const idLengthMax = 512

/** A user may be kept out for as long as an issuer's clock is fast, no longer. */
const aheadMsMax = 5 * 60_000

/** 31 December 9999. */
const timeMsMax = 253_402_300_799_999

/** Faults: `unauthenticated`, `denied`, `invalid`, `unavailable`. */
export function createRevokeDoor({ auth, now, tick }: RevokeDeps): Door {
  return async (request, visit) => {
    requireAdmin(visit)
    const revocation = revocationOf(await readJson(request), now())
    await auth.revoke(revocation)
    return new Response(JSON.stringify({ revoked: revocation }), {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}

/** Faults: `invalid`. */
export function revocationOf(body: unknown, nowMs: number): Revocation {
  const fields = readFields(body, ['jti', 'sid', 'user', 'before', 'expiresAt'])
  const given = {
    token: idOf(fields, 'jti'),
    session: idOf(fields, 'sid'),
    user: idOf(fields, 'user'),
  }
  const before = timeField(fields, 'before', nowMs + aheadMsMax)
  const untilMs = timeField(fields, 'expiresAt', timeMsMax)
  const [one, ...others] = Object.entries(given).filter(([, id]) => id !== undefined)
  if (!one || others.length > 0) fields.problem('user', 'give one of jti, sid and user')
  const [kind, id = ''] = (one ?? ['user', '']) as [Revocation['kind'], string | undefined]
  if (kind !== 'user' && before !== undefined) fields.problem('before', 'is for a user')
  if (kind === 'user' && untilMs !== undefined) fields.problem('expiresAt', 'is for a jti or a sid')
  const atMs = before ?? nowMs
  return fields.done({ kind, id, atMs, ...(untilMs === undefined ? {} : { untilMs }) })
}

function idOf(fields: Fields, field: string): string | undefined {
  const id = fields.text(field, idLengthMax)
  if (id === '') fields.problem(field, 'must not be empty')
  return id
}

/** The command line has only texts. */
function timeField(fields: Fields, field: string, mostMs: number): number | undefined {
  const value = fields.any(field)
  if (value === undefined) return undefined
  const text = typeof value === 'number' ? String(value) : typeof value === 'string' ? value : ''
  const ms = timeOf(text) ?? NaN
  if (ms >= 0 && ms <= mostMs) return ms
  fields.problem(
    field,
    `must be ISO 8601 with a zone, or ms since 1970, until ${new Date(mostMs).toISOString()}`,
  )
  return undefined
}
