/**
 * Verifying and signing JWTs, through jose with an explicit list of algorithms. What makes a token
 * good is decided here; how rarely that is asked, in token-cache.ts.
 */
import { errors, importSPKI, jwtVerify, SignJWT, type CryptoKey, type JWTPayload } from 'jose'
import { createPublicKey } from 'node:crypto'
import { Fault } from '../fault.ts'
import type { User } from './declare.ts'
import type { TopicVerdict, Verdict } from './auth.ts'

export interface TokenConfig {
  /** HS256 secret. At least 32 bytes (RFC 7518 §3.2). */
  readonly secret?: string | undefined
  /** PEM of an RSA, P-256 or Ed25519 public key. */
  readonly publicKey?: string | undefined
  readonly issuer?: string | undefined
  readonly audience?: string | undefined
}

/** Longer tokens are refused unread: they would be hashed, parsed and kept. */
export const tokenLengthMax = 8 * 1024

const secretBytesMin = 32

/** Clocks of issuer and server may differ by so much. */
const clockToleranceS = 5

/** A token is for the server or for one topic, never for both. */
export interface Verified {
  readonly verdict: Verdict
  readonly topic: TopicVerdict
  readonly expiresAtMs: number | undefined
}

export type Verify = (token: string, nowMs: number) => Promise<Verified>

/** Faults: `invalid` for a key that cannot be used, naming its variable. */
export async function createVerify(config: TokenConfig): Promise<Verify | undefined> {
  const key = await keyOf(config)
  if (!key) return undefined
  const options = {
    algorithms: [key.algorithm],
    clockTolerance: clockToleranceS,
    ...(config.issuer === undefined ? {} : { issuer: config.issuer }),
    ...(config.audience === undefined ? {} : { audience: config.audience }),
  }
  return async (token, nowMs) => {
    if (!isCanonical(token)) return neither(refused('the token is malformed'))
    try {
      const { payload } = await jwtVerify(token, key.key, {
        ...options,
        currentDate: new Date(nowMs),
      })
      return read(payload)
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        return neither({ ok: false, reason: 'expired', message: 'the token has expired' })
      }
      // jose's messages name the claim or the header that failed, never the key or the token.
      return neither(
        refused(error instanceof errors.JOSEError ? error.message : 'the token is not valid'),
      )
    }
  }
}

interface Refusal {
  readonly ok: false
  readonly reason: 'invalid' | 'expired'
  readonly message: string
}

function neither(refusal: Refusal): Verified {
  return { verdict: refusal, topic: refusal, expiresAtMs: undefined }
}

/** What lets into one topic must not let into everything that its user may do. */
function read(payload: JWTPayload): Verified {
  const { sub = '', channel, info } = payload
  const expiresAtMs = payload.exp === undefined ? undefined : payload.exp * 1000
  if (typeof channel === 'string') {
    return {
      verdict: refused('the token is for one topic only (it has a channel)'),
      topic: { ok: true, pass: { topic: channel, user: sub, expiresAtMs, info } },
      expiresAtMs,
    }
  }
  const topic = refused('the token is for no topic (no channel)')
  return { verdict: userOf(payload, expiresAtMs), topic, expiresAtMs }
}

function userOf(payload: JWTPayload, expiresAtMs: number | undefined): Verdict {
  if (typeof payload.sub !== 'string' || payload.sub === '') {
    return refused('the token names nobody (no sub)')
  }
  const { sub, role, ...claims } = payload
  const user: User = {
    ...claims,
    id: sub,
    ...(typeof role === 'string' ? { role } : {}),
  }
  return { ok: true, identity: { kind: 'user', user, expiresAtMs } }
}

function refused(message: string): Refusal {
  return { ok: false, reason: 'invalid', message }
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

interface VerifyKey {
  readonly key: CryptoKey | Uint8Array
  readonly algorithm: string
}

async function keyOf({ secret, publicKey }: TokenConfig): Promise<VerifyKey | undefined> {
  if (secret !== undefined && publicKey !== undefined) {
    throw new Fault('invalid', 'JWT_SECRET and JWT_PUBLIC_KEY are both set: choose one')
  }
  if (secret !== undefined) return { key: secretBytes(secret), algorithm: 'HS256' }
  if (publicKey === undefined) return undefined
  const pem = publicKey.replaceAll('\\n', '\n')
  try {
    const algorithm = algorithmOf(pem)
    return { key: await importSPKI(pem, algorithm), algorithm }
  } catch (cause) {
    throw new Fault('invalid', 'JWT_PUBLIC_KEY is no PEM public key of RSA, P-256 or Ed25519', {
      cause,
    })
  }
}

function secretBytes(secret: string): Uint8Array {
  const bytes = new TextEncoder().encode(secret)
  if (bytes.byteLength >= secretBytesMin) return bytes
  throw new Fault('invalid', `JWT_SECRET must have at least ${secretBytesMin} bytes`, {
    hint: 'make one with: openssl rand -base64 32',
  })
}

/** The key decides the algorithm, never the token's header. */
function algorithmOf(pem: string): string {
  const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey(pem)
  if (asymmetricKeyType === 'rsa') return 'RS256'
  if (asymmetricKeyType === 'ed25519') return 'EdDSA'
  if (asymmetricKeyDetails?.namedCurve === 'prime256v1') return 'ES256'
  throw new Fault('invalid', `a ${asymmetricKeyType ?? 'unknown'} key is not supported`)
}

/** For `belfry token` and tests: what an issuer with the same secret would hand out. */
export async function signToken(
  secret: string,
  claims: Readonly<Record<string, unknown>> & { readonly sub?: string },
  times: { readonly nowMs: number; readonly ttlMs: number },
): Promise<string> {
  const nowS = Math.floor(times.nowMs / 1000)
  return await new SignJWT({ ...claims })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setIssuedAt(nowS)
    .setExpirationTime(nowS + Math.ceil(times.ttlMs / 1000))
    .sign(secretBytes(secret))
}
