/**
 * Keys that verify, each with the list of algorithms it may verify: the key decides, never the token's header.
 * A shared secret is good for HS only, an RSA key for RS and PS only, so no token can turn one into another.
 */
import { importJWK, importSPKI, type CryptoKey, type JWK } from 'jose'
import { createPublicKey } from 'node:crypto'
import { Fault } from '../fault.ts'

export interface VerifyKey {
  /** Undefined: it has no name, and is meant by every token. */
  readonly kid: string | undefined
  /** The key as each of its algorithms wants it. */
  readonly algorithms: ReadonlyMap<string, CryptoKey | Uint8Array>
}

/** RFC 7518 §3.2: a secret is at least as long as the hash. */
const secretBytesMin = { HS256: 32, HS384: 48, HS512: 64 } as const

const pssAlgorithms = ['PS256', 'PS384', 'PS512']
const rsaAlgorithms = ['RS256', 'RS384', 'RS512', ...pssAlgorithms]

/** RFC 7518 §3.3. Above the upper bound one signature costs milliseconds. */
const modulusBits = { least: 2_048, most: 8_192 } as const

const curveAlgorithms: Readonly<Record<string, readonly string[]>> = {
  'P-256': ['ES256'],
  'P-384': ['ES384'],
  'P-521': ['ES512'],
  // RFC 8037, and its name since RFC 9864.
  Ed25519: ['EdDSA', 'Ed25519'],
}

/** Every algorithm there is here. */
export const algorithmsKnown: ReadonlySet<string> = new Set([
  ...Object.keys(secretBytesMin),
  ...rsaAlgorithms,
  ...Object.values(curveAlgorithms).flat(),
])

/** Faults: `invalid` for one that is too short. */
export function secretKey(secret: string): VerifyKey {
  return bytesKey(secretBytes(secret))
}

export function bytesKey(bytes: Uint8Array): VerifyKey {
  return { kid: undefined, algorithms: hmacAlgorithms(bytes) }
}

/** For signing, too. Faults: `invalid`. */
export function secretBytes(secret: string): Uint8Array {
  const bytes = new TextEncoder().encode(secret)
  if (bytes.byteLength >= secretBytesMin.HS256) return bytes
  throw new Fault('invalid', `JWT_SECRET must have at least ${secretBytesMin.HS256} bytes`, {
    hint: 'make one with: openssl rand -base64 32',
  })
}

function hmacAlgorithms(bytes: Uint8Array): Map<string, Uint8Array> {
  const fitting = Object.entries(secretBytesMin).filter(([, least]) => bytes.byteLength >= least)
  return new Map(fitting.map(([algorithm]) => [algorithm, bytes]))
}

/** Faults: `invalid`. */
export async function pemKey(text: string): Promise<VerifyKey> {
  const pem = text.replaceAll('\\n', '\n')
  try {
    const algorithms = new Map<string, CryptoKey>()
    for (const one of algorithmsOfPem(pem)) algorithms.set(one, await importSPKI(pem, one))
    return { kid: undefined, algorithms }
  } catch (cause) {
    throw new Fault('invalid', 'JWT_PUBLIC_KEY is no PEM public key of RSA, EC or Ed25519', {
      hint: `RSA of ${modulusBits.least} bits and more; P-256, P-384 or P-521`,
      cause,
    })
  }
}

function algorithmsOfPem(pem: string): readonly string[] {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = createPublicKey(pem)
  const bits = details?.modulusLength ?? 0
  if (bits >= modulusBits.least && bits <= modulusBits.most) {
    if (type === 'rsa') return rsaAlgorithms
    if (type === 'rsa-pss') return pssAlgorithms
  }
  const curves: Readonly<Record<string, string>> = {
    prime256v1: 'P-256',
    secp384r1: 'P-384',
    secp521r1: 'P-521',
  }
  const curve = type === 'ed25519' ? 'Ed25519' : curves[details?.namedCurve ?? '']
  const found = curve === undefined ? undefined : curveAlgorithms[curve]
  if (found) return found
  throw new Fault('invalid', `a ${type ?? 'unknown'} key is not supported`)
}

export interface JwksOptions {
  /** Shared secrets in it count: never in one that others can read. */
  readonly allowsSecrets: boolean
}

/** More are no key set of one issuer. */
const keysMax = 100

/**
 * The keys of a JWK set (RFC 7517) that can verify; others are left out, as it wants (§5). Of private keys the
 * public half is taken. Faults: `invalid` if it is none.
 */
export async function keysOfSet(set: unknown, options: JwksOptions): Promise<VerifyKey[]> {
  const keys = isRecord(set) ? set['keys'] : undefined
  if (!Array.isArray(keys)) throw new Fault('invalid', 'this is no JWK set: it has no keys')
  if (keys.length > keysMax) throw new Fault('invalid', `a JWK set of more than ${keysMax} keys`)
  const found = await Promise.all(keys.map((one) => keyOf(one, options)))
  return found.filter((one) => one !== undefined)
}

async function keyOf(jwk: unknown, options: JwksOptions): Promise<VerifyKey | undefined> {
  if (!isRecord(jwk)) return undefined
  const { kid, use, alg, key_ops: operations } = jwk
  if (use !== undefined && use !== 'sig') return undefined
  if (Array.isArray(operations) && !operations.includes('verify')) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  const algorithms = new Map<string, CryptoKey | Uint8Array>()
  try {
    for (const [name, key] of await importAll(jwk, options)) {
      if (alg === undefined || alg === name) algorithms.set(name, key)
    }
  } catch {
    return undefined
  }
  return algorithms.size === 0 ? undefined : { kid, algorithms }
}

async function importAll(
  jwk: Record<string, unknown>,
  { allowsSecrets }: JwksOptions,
): Promise<Map<string, CryptoKey | Uint8Array>> {
  const { kty, crv, n, e, x, y, k } = jwk
  if (kty === 'oct') {
    return allowsSecrets ? hmacAlgorithms(Buffer.from(String(k), 'base64url')) : new Map()
  }
  if (kty === 'RSA') return await importEach({ kty, n: modulus(n), e: String(e) }, rsaAlgorithms)
  const names = curveAlgorithms[String(crv)] ?? []
  const isEdwards = crv === 'Ed25519'
  if (kty === 'OKP' && isEdwards) return await importEach({ kty, crv, x: String(x) }, names)
  if (kty !== 'EC' || isEdwards) return new Map()
  return await importEach({ kty, crv: String(crv), x: String(x), y: String(y) }, names)
}

async function importEach(
  jwk: JWK,
  algorithms: readonly string[],
): Promise<Map<string, CryptoKey | Uint8Array>> {
  const found = new Map<string, CryptoKey | Uint8Array>()
  for (const algorithm of algorithms) found.set(algorithm, await importJWK(jwk, algorithm))
  return found
}

/** Faults: `invalid` for a key that is too weak. */
function modulus(n: unknown): string {
  const bits = Buffer.from(String(n), 'base64url').byteLength * 8
  if (bits >= modulusBits.least && bits <= modulusBits.most) return String(n)
  throw new Fault('invalid', `an RSA key of ${bits} bits`)
}

export interface Picked {
  readonly key: CryptoKey | Uint8Array
  readonly algorithm: string
}

/**
 * The one key that a header means. `kid` is compared with names and used for nothing else. `unknown`: a key of
 * this name may be new.
 */
export function pickKey(
  keys: readonly VerifyKey[],
  { alg, kid }: { readonly alg: string; readonly kid: string | undefined },
): Picked | 'unknown' | 'unfit' {
  const named = keys.filter((one) => kid === undefined || one.kid === kid)
  const meant = named.length > 0 ? named : keys.filter((one) => one.kid === undefined)
  const fitting = meant.flatMap(({ algorithms }) => algorithms.get(alg) ?? [])
  const [key, ...others] = fitting
  if (key && others.length === 0) return { key, algorithm: alg }
  return meant.length === 0 ? 'unknown' : 'unfit'
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
