/**
 * Who asks: a bearer token (JWT) makes a user, an API key makes another server, with all rights or with
 * those of its scopes, nothing makes a visitor. What is given and wrong is refused; it never falls back to "visitor".
 *
 * Invariants: a token counts only in its canonical spelling, only under the key's own algorithm, only
 * until its `exp`; neither token nor key is ever logged or kept, hashes are.
 */
import { timingSafeEqual } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { must } from '../lib/assert.ts'
import type { Limiter } from '../limits/limits.ts'
import type { Notice, Store } from '../store/store.ts'
import { createAccounts, type Accounts, type AccountsPlan } from './accounts.ts'
import { createApiKeys, sha256, type ApiKeys, type KeyAct } from './api-keys.ts'
import type { SendContext, User } from './declare.ts'
import { createEviction, type Sockets } from './eviction.ts'
import { createRevocations, type Revocation, type RevocationDeps } from './revocations.ts'
import { createSigner } from './signer.ts'
import { createTokenCache } from './token-cache.ts'
import { createTurns } from './turns.ts'
import { createVerifier, neither, refused, type TokenConfig, type Verified } from './token.ts'

export { accountLimits } from './accounts.ts'
export type { Accounts, AccountsPlan, Grant, Holder } from './accounts.ts'
export type { AccountEntry } from './account-values.ts'
export type { ApiKey, KeyAct } from './api-keys.ts'
export type { Revocation } from './revocations.ts'
export { signToken, type CheckClaims } from './token.ts'

/** Who asks, decided once per request or connection. */
export type Identity =
  | { readonly kind: 'anonymous'; readonly user: null }
  | { readonly kind: 'user'; readonly user: User; readonly expiresAtMs: number | undefined }
  /** Holder of the server's API key, or of one with the scope `admin`: may use the server API; is nobody in rules. */
  | {
      readonly kind: 'key'
      readonly user: null
      readonly key?: string
      readonly expiresAtMs?: number | undefined
    }
  /** Holder of an API key that may do some of it. `key`: its id. */
  | {
      readonly kind: 'scoped'
      readonly user: null
      readonly key: string
      readonly expiresAtMs: number | undefined
      readonly may: (act: KeyAct, topic: string) => boolean
    }

export const anonymous: Identity = { kind: 'anonymous', user: null }

/** Of API_KEY. */
export const keyHolder: Identity = { kind: 'key', user: null }

/** What came of a credential. `expired` is told apart because clients answer it by refreshing. */
export type Verdict =
  | { readonly ok: true; readonly identity: Identity }
  | { readonly ok: false; readonly reason: 'invalid' | 'expired'; readonly message: string }

/** What came of a subscription token. */
export type TopicVerdict =
  | { readonly ok: true; readonly pass: TopicPass }
  | { readonly ok: false; readonly reason: 'invalid' | 'expired'; readonly message: string }

/** Lets a user into one topic, whatever the topic's rule says: a token with the claim `channel`. */
export interface TopicPass {
  readonly topic: string
  /** Empty for visitors: such a token may have no `sub`. */
  readonly user: string
  readonly expiresAtMs: number | undefined
  /** The claim of this name: shown to others by presence. */
  readonly info?: unknown
}

export interface AuthConfig extends TokenConfig {
  /** Opens the server API. Unset: the server API is closed. */
  readonly apiKey?: string | undefined
}

export interface Auth {
  /**
   * A bearer token. Synchronous when it is known. `from`: the address it comes from, asked only if tokens stand in line.
   * Faults: `unavailable` while its issuer's keys cannot be had, `overloaded` while too many are forged.
   */
  identify(token: string, from?: () => string): Verdict | Promise<Verdict>
  /** A subscription token. It identifies nobody: `identify` refuses it. */
  identifyTopic(token: string, from?: () => string): TopicVerdict | Promise<TopicVerdict>
  /** The `X-API-Key` header: API_KEY, or one that was made. Compared in constant time. */
  identifyKey(key: string): Verdict
  readonly keys: Pick<ApiKeys, 'create' | 'list' | 'revoke'>
  /** If the app has any. */
  readonly accounts: Accounts | undefined
  /** From now on these tokens are refused, their sockets and streams closed, on every node. Faults: `unavailable`. */
  revoke(revocation: Revocation): Promise<void>
  /** What the log says to this room; the rest is passed over. */
  hear(notice: Notice): void
  /** What is written down is read; again when entries of the log are gone. After the store's start. */
  load(): Promise<void>
  /** Whom to close when a token or a key is revoked. */
  evictFrom(sockets: Sockets): void
  stats(): {
    readonly verifications: number
    /** Tokens that were not looked at because too many were forged. */
    readonly turnedAway: number
    readonly revocations: number
  }
  /** Before the store's. */
  stop(): Promise<void>
}

export interface AuthDeps extends RevocationDeps {
  readonly clock: Clock
  readonly log: Log
  readonly store?: Pick<Store, 'read' | 'write' | 'note' | 'secret'> | undefined
  /** For accounts. */
  readonly limiter?: Pick<Limiter, 'look' | 'take'>
  readonly env?: SendContext['env']
}

/** `plan`: of accounts. Faults: `invalid` for keys in the configuration that cannot be used. */
export async function createAuth(
  deps: AuthDeps,
  config: AuthConfig,
  plan?: AccountsPlan,
): Promise<Auth> {
  const { clock, log } = deps
  const own = plan && openAccounts(deps, config, plan)
  const turns = createTurns({ clock })
  const verifier = await createVerifier({ clock, log, turns }, config, own?.source)
  const revocations = createRevocations(deps)
  const keys = createApiKeys(deps)
  const eviction = createEviction({ clock, revocations, keys })
  const seen = ({ marks }: Verified): void => marks && eviction.seen(marks)
  const cache = verifier && createTokenCache({ clock, malformed, revocations, seen }, verifier)
  const apiKeyHash = config.apiKey === undefined ? undefined : sha256(config.apiKey)

  return {
    identify(token, from) {
      const known = cache ? cache.verify(token, from) : noTokens
      return known instanceof Promise ? known.then(({ verdict }) => verdict) : known.verdict
    },
    identifyTopic(token, from) {
      const known = cache ? cache.verify(token, from) : noTokens
      return known instanceof Promise ? known.then(({ topic }) => topic) : known.topic
    },
    identifyKey(key) {
      const isRight = apiKeyHash !== undefined && timingSafeEqual(sha256(key), apiKeyHash)
      const identity = isRight ? keyHolder : keys.identify(key)
      return identity ? { ok: true, identity } : refused('the API key is not valid')
    },
    keys,
    accounts: own?.accounts,
    revoke: (revocation) => revocations.revoke(revocation, own?.accounts.endedBy(revocation)),
    hear(notice) {
      revocations.hear(notice)
      keys.hear(notice)
    },
    async load() {
      await Promise.all([revocations.load(), keys.load()])
      revocations.start()
      keys.start()
      own?.accounts.start()
    },
    evictFrom: eviction.from,
    stats: () => ({
      verifications: cache?.verifications ?? 0,
      turnedAway: turns.refused,
      revocations: revocations.size,
    }),
    async stop() {
      revocations.stop()
      eviction.stop()
      verifier?.stop()
      turns.stop()
      await keys.stop()
      await own?.accounts.stop()
    },
  }
}

function openAccounts(deps: AuthDeps, config: AuthConfig, plan: AccountsPlan) {
  const { clock, log, env = {} } = deps
  const store = must(deps.store, () => 'accounts have a store')
  const limiter = must(deps.limiter, () => 'accounts have limits')
  const signer = createSigner(config, store.secret)
  const accounts = createAccounts({ clock, log, env, store, limiter, signer }, plan)
  return { accounts, source: signer.source }
}

const noTokens = neither('this server accepts no tokens: no key is configured')
const malformed = neither('the token is malformed, or too long')
