/**
 * Verifying and signing JWTs: the signature through jose, under the one algorithm that the key allows; the
 * claims here. What makes a token good is decided in this file; how rarely that is asked, in token-cache.ts.
 *
 *   canonical? ─► header and claims parsed, no name twice ─► typ ─► `iss` names the source ─► its key ─►
 *   its turn (`turns.ts`) ─► signature ─► exp, nbf, iat, iss, aud ─► user or topic
 *
 * A header is never followed: `jku`, `jwk`, `x5u` and `x5c` are not read, `crit` is refused whatever it names.
 */
import { compactVerify, SignJWT } from 'jose'
import { Fault } from '../fault.ts'
import { hasTwins, isTooDeep } from '../lib/json.ts'
import type { User } from './declare.ts'
import type { TopicVerdict, Verdict } from './auth.ts'
import { marksOf, type Marks } from './revocations.ts'
import { fixedKeys, openJwks, type JwksDeps, type KeySource } from './jwks.ts'
import type { Turns } from './turns.ts'
import { algorithmsKnown, pemKey, pickKey, secretBytes, secretKey, type Picked } from './keys.ts'

export interface TokenConfig {
  /** For HS256, of at least 32 bytes; 48 for HS384, 64 for HS512 (RFC 7518 §3.2). */
  readonly secret?: string | undefined
  /** PEM of an RSA, EC or Ed25519 public key. */
  readonly publicKey?: string | undefined
  /** `http:`, `https:` or `file:`. */
  readonly jwks?: readonly string[] | undefined
  /**
   * With one key or JWKS: any of them. With several: one for each, in order, the secret or PEM first, and each
   * is good for its own issuer's tokens only.
   */
  readonly issuers?: readonly string[] | undefined
  /** Any of them. */
  readonly audiences?: readonly string[] | undefined
  /** Absent: `JWT` and `at+jwt`, and tokens that do not say. */
  readonly typ?: string | undefined
  /** Clocks of issuer and server may differ by so much. */
  readonly toleranceMs?: number | undefined
  /** What the app declares of its users' claims. */
  readonly claims?: CheckClaims | undefined
}

/** What is wrong with a token's claims, naming one of them and no value; undefined: they fit. */
export type CheckClaims = (claims: Readonly<Record<string, unknown>>) => string | undefined

/** Longer tokens are refused unread: they would be hashed, parsed and kept. */
export const tokenLengthMax = 8 * 1024

export const toleranceMsDefault = 5_000

/** A server that cannot know is asked again after so long. */
const retryAfterMs = 5_000

/** A token is for the server or for one topic, never for both. */
export interface Verified {
  readonly verdict: Verdict
  readonly topic: TopicVerdict
  readonly expiresAtMs: number | undefined
  /** Of a refusal: it may be good from then on. */
  readonly notBeforeMs: number | undefined
  /** Of a good token: by what it can be revoked. */
  readonly marks?: Marks
}

export interface Verifier {
  /** Of the configuration and of the keys: what was verified under another one has to be verified again. */
  readonly version: string
  /** `from`: the address it comes from. Faults: `unavailable` while there are no keys, `overloaded`. */
  verify(token: string, nowMs: number, from: () => string): Promise<Verified>
  stop(): void
}

export interface Source {
  /** Empty: whoever has the key. */
  readonly issuers: readonly string[]
  readonly from: KeySource
}

export interface VerifierDeps extends JwksDeps {
  readonly turns: Pick<Turns, 'run'>
}

/** `own`: asked before those of the configuration. Undefined without any key. Faults: `invalid` for what cannot be used, naming its variable. */
export async function createVerifier(
  deps: VerifierDeps,
  config: TokenConfig,
  own?: Source,
): Promise<Verifier | undefined> {
  const sources = [...(own ? [own] : []), ...(await openSources(deps, config))]
  if (sources.length === 0) return undefined
  const toleranceMs = config.toleranceMs ?? toleranceMsDefault
  const { audiences = [] } = config
  const id = Bun.SHA256.hash(JSON.stringify(config), 'base64')

  const pick = async (source: Source, header: Header): Promise<Picked | 'unknown' | 'unfit'> => {
    const { from } = source
    const known = from.keys()
    const first = known ? pickKey(known, header) : 'unknown'
    if (first !== 'unknown') return first
    await from.seek()
    const keys = from.keys()
    if (keys) return pickKey(keys, header)
    throw new Fault('unavailable', "the issuer's keys cannot be had right now", { retryAfterMs })
  }

  const verify: Verifier['verify'] = async (token, nowMs, from) => {
    const parsed = parse(token)
    if (!parsed) return neither('the token is malformed')
    const { header, claims } = parsed
    if (!isTyp(header.typ, config.typ)) return neither('the token is of another type (typ)')
    const { iss } = claims
    const source = sources.find(
      ({ issuers }) => issuers.length === 0 || issuers.some((one) => one === iss),
    )
    if (!source) return neither('unexpected "iss" claim value')
    const picked = await pick(source, header)
    if (typeof picked === 'string') return neither('no key for this token (alg, kid)')
    const isGenuine = await deps.turns.run(from, () => isSigned(token, picked))
    if (!isGenuine) return neither('signature verification failed')
    return judge(claims, { nowMs, toleranceMs, audiences, check: config.claims })
  }

  let seen = -1
  let version = ''
  return {
    get version() {
      let generation = 0
      for (const { from } of sources) generation += from.generation
      if (generation !== seen) version = `${id}.${(seen = generation)}.`
      return version
    },
    verify,
    stop() {
      for (const { from } of sources) from.stop()
    },
  }
}

async function openSources(deps: JwksDeps, config: TokenConfig): Promise<Source[]> {
  const { secret, publicKey, jwks = [], issuers = [] } = config
  if (secret !== undefined && publicKey !== undefined) {
    throw new Fault('invalid', 'JWT_SECRET and JWT_PUBLIC_KEY are both set: choose one')
  }
  const own: KeySource[] = []
  if (secret !== undefined) own.push(fixedKeys([secretKey(secret)]))
  if (publicKey !== undefined) own.push(fixedKeys([await pemKey(publicKey)]))
  const count = own.length + jwks.length
  if (count > 1 && issuers.length !== count) {
    throw new Fault('invalid', `JWT_ISSUER must name ${count} issuers, one for each key or JWKS`, {
      hint: 'comma-separated; JWT_SECRET or JWT_PUBLIC_KEY comes first, then JWKS_URL in its order',
    })
  }
  if (new Set(issuers).size < issuers.length)
    throw new Fault('invalid', 'JWT_ISSUER names one twice')
  const opened = await Promise.all(jwks.map((one) => openJwks(deps, new URL(one))))
  return [...own, ...opened].map((from, at) => ({
    from,
    issuers: count > 1 ? issuers.slice(at, at + 1) : issuers,
  }))
}

interface Header {
  readonly alg: string
  readonly kid: string | undefined
  readonly typ: unknown
}

type Claims = Readonly<Record<string, unknown>>

function parse(token: string): { readonly header: Header; readonly claims: Claims } | undefined {
  if (!isCanonical(token)) return undefined
  const [head = '', body = ''] = token.split('.')
  const header = readPart(head)
  const claims = readPart(body)
  if (!header || !claims) return undefined
  const { alg, kid, typ, crit } = header
  if (typeof alg !== 'string' || !algorithmsKnown.has(alg) || crit !== undefined) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  return { header: { alg, kid, typ }, claims }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function readPart(part: string): Claims | undefined {
  try {
    const text = utf8.decode(Buffer.from(part, 'base64url'))
    if (isTooDeep(text)) return undefined
    const value: unknown = JSON.parse(text)
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isObject && !hasTwins(text) ? (value as Claims) : undefined
  } catch {
    return undefined
  }
}

/** RFC 8725 §3.11: what was made for something else, an event or a logout, is no token for here. */
function isTyp(typ: unknown, wanted: string | undefined): boolean {
  if (typ === undefined) return wanted === undefined
  if (typeof typ !== 'string') return false
  const plain = (text: string): string => text.toLowerCase().replace(/^application\//, '')
  return wanted === undefined ? /^(at\+)?jwt$/.test(plain(typ)) : plain(typ) === plain(wanted)
}

/** Whether the signature is this key's. The payload is what `parse` read: there is one spelling. */
export async function isSigned(token: string, { key, algorithm }: Picked): Promise<boolean> {
  try {
    await compactVerify(token, key, { algorithms: [algorithm] })
    return true
  } catch {
    return false
  }
}

interface Judging {
  readonly nowMs: number
  readonly toleranceMs: number
  readonly audiences: readonly string[]
  readonly check: CheckClaims | undefined
}

/** RFC 7519 §4.1, of claims that are signed by their issuer. */
function judge(claims: Claims, { nowMs, toleranceMs, audiences, check }: Judging): Verified {
  const { exp, nbf, iat, aud } = claims
  for (const [name, value] of Object.entries({ exp, nbf, iat })) {
    if (value !== undefined && typeof value !== 'number') return neither(`"${name}" is no number`)
  }
  const given: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
  if (audiences.length > 0 && !audiences.some((one) => given.includes(one))) {
    return neither('unexpected "aud" claim value')
  }
  if (typeof exp === 'number' && exp * 1000 <= nowMs - toleranceMs) {
    const expired = { ok: false, reason: 'expired', message: 'the token has expired' } as const
    return { verdict: expired, topic: expired, expiresAtMs: undefined, notBeforeMs: undefined }
  }
  const notBeforeMs = typeof nbf === 'number' ? nbf * 1000 - toleranceMs : undefined
  if (notBeforeMs !== undefined && notBeforeMs > nowMs) {
    return { ...neither('the token is not valid yet (nbf)'), notBeforeMs }
  }
  return { ...read(claims, check), notBeforeMs }
}

interface Refusal {
  readonly ok: false
  readonly reason: 'invalid' | 'expired'
  readonly message: string
}

export function refused(message: string): Refusal {
  return { ok: false, reason: 'invalid', message }
}

export function neither(message: string): Verified {
  const refusal = refused(message)
  return { verdict: refusal, topic: refusal, expiresAtMs: undefined, notBeforeMs: undefined }
}

/** What lets into one topic must not let into everything that its user may do. */
function read(claims: Claims, check?: CheckClaims): Omit<Verified, 'notBeforeMs'> {
  const { sub = '', channel, info, exp } = claims
  const expiresAtMs = typeof exp === 'number' ? exp * 1000 : undefined
  if (typeof sub !== 'string') return neither('"sub" is no text')
  const marks = marksOf(claims, sub)
  if (typeof channel === 'string') {
    return {
      verdict: refused('the token is for one topic only (it has a channel)'),
      topic: { ok: true, pass: { topic: channel, user: sub, expiresAtMs, info } },
      expiresAtMs,
      marks,
    }
  }
  const topic = refused('the token is for no topic (no channel)')
  const unfit = check?.(claims)
  const verdict = unfit === undefined ? userOf(claims, sub, expiresAtMs) : refused(unfit)
  return { verdict, topic, expiresAtMs, marks }
}

function userOf(claims: Claims, id: string, expiresAtMs: number | undefined): Verdict {
  if (id === '') return refused('the token names nobody (no sub)')
  const { sub: _, role, ...rest } = claims
  const user: User = { ...rest, id, ...(typeof role === 'string' ? { role } : {}) }
  return { ok: true, identity: { kind: 'user', user, expiresAtMs } }
}

/**
 * jose lets padding, white space and a last character with stray bits through: each spelling would
 * be another hash, a flood for the cache and a way around a deny-list. Only the canonical one counts.
 */
export function isCanonical(token: string): boolean {
  if (token.length > tokenLengthMax) return false
  const parts = token.split('.')
  return parts.length === 3 && parts.every(isCanonicalBase64Url)
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

function isCanonicalBase64Url(part: string): boolean {
  if (!/^[\w-]+$/.test(part)) return false
  const rest = part.length % 4
  if (rest === 1) return false
  // The last character of a short group has 4 or 2 bits that decode to nothing: they must be zero.
  const unused = rest === 2 ? 0b1111 : rest === 3 ? 0b11 : 0
  return (alphabet.indexOf(part.at(-1) ?? '') & unused) === 0
}

/** For accounts, `belfry token` and tests: what an issuer with the same secret would hand out. */
export async function signToken(
  secret: string | Uint8Array,
  claims: Readonly<Record<string, unknown>> & { readonly sub?: string },
  times: { readonly nowMs: number; readonly ttlMs: number; readonly typ?: string | undefined },
): Promise<string> {
  const nowS = Math.floor(times.nowMs / 1000)
  return await new SignJWT({ ...claims })
    .setProtectedHeader({ alg: 'HS256', typ: times.typ ?? 'JWT' })
    .setIssuedAt(nowS)
    .setExpirationTime(nowS + Math.ceil(times.ttlMs / 1000))
    .sign(typeof secret === 'string' ? secretBytes(secret) : secret)
}
