/**
 * Signs access tokens of accounts: with JWT_SECRET, as any issuer that has it would, else with a key made from the
 * database's own secret. So accounts need no configuration, and all nodes on one database sign and verify alike.
 */
import type { KeySource } from './jwks.ts'
import { bytesKey, secretBytes } from './keys.ts'
import { signToken, type TokenConfig } from './token.ts'

/** A client refreshes it well before; whoever lost a role or a session has been told of it at once. */
export const accessMs = 15 * 60_000

/** `iss` where the key is the database's: no issuer on the network is called so. */
const ownIssuer = 'belfry'

export interface Signer {
  /** `atMs`: when what the claims say was found to be so. */
  sign(claims: Readonly<Record<string, unknown>>, atMs: number): Promise<string>
  /** Verifies them, where the configuration's own keys do not. */
  readonly source: { readonly issuers: readonly string[]; readonly from: KeySource } | undefined
}

/** `secret`: of the database, once the store is started. */
export function createSigner(config: TokenConfig, secret: () => Uint8Array): Signer {
  const { secret: configured, issuers = [], audiences = [], typ } = config
  const [audience] = audiences
  let made: Uint8Array | undefined
  const key = (): Uint8Array =>
    configured === undefined
      ? (made ??= derivedKey(secret(), 'access tokens'))
      : secretBytes(configured)
  const issuer = configured === undefined ? ownIssuer : issuers[0]
  const fixed = {
    ...(issuer === undefined ? {} : { iss: issuer }),
    ...(audience === undefined ? {} : { aud: audience }),
  }
  return {
    sign: (claims, atMs) =>
      signToken(key(), { ...fixed, ...claims }, { nowMs: atMs, ttlMs: accessMs, typ }),
    source: configured === undefined ? { issuers: [ownIssuer], from: lazyKey(key) } : undefined,
  }
}

/** One secret, a key for each purpose: none tells anything of another. */
export function derivedKey(secret: Uint8Array, purpose: string): Uint8Array {
  return new Bun.CryptoHasher('sha256', secret).update(`belfry accounts: ${purpose}`).digest()
}

function lazyKey(key: () => Uint8Array): KeySource {
  return { generation: 0, keys: () => [bytesKey(key())], seek: () => Promise.resolve(), stop() {} }
}
