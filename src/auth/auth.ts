/**
 * Who asks: a bearer token (JWT) makes a user, the API key makes the server's own operator, nothing
 * makes a visitor. What is given and wrong is refused; it never falls back to "visitor".
 *
 * Invariants: a token counts only in its canonical spelling, only under the key's own algorithm, only
 * until its `exp`; neither token nor key is ever logged or kept, hashes are.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import type { Notice } from '../store/store.ts'
import type { User } from './declare.ts'
import { createEviction, type Sockets } from './eviction.ts'
import { createRevocations, type Revocation, type RevocationDeps } from './revocations.ts'
import { createTokenCache } from './token-cache.ts'
import { createVerifier, neither, refused, type TokenConfig, type Verified } from './token.ts'

export type { Revocation } from './revocations.ts'
export { signToken } from './token.ts'

/** Who asks, decided once per request or connection. */
export type Identity =
  | { readonly kind: 'anonymous'; readonly user: null }
  | { readonly kind: 'user'; readonly user: User; readonly expiresAtMs: number | undefined }
  /** Holder of the server's API key: may use the server API; is nobody in rules. */
  | { readonly kind: 'key'; readonly user: null }

export const anonymous: Identity = { kind: 'anonymous', user: null }

const keyHolder: Identity = { kind: 'key', user: null }

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
  /** A bearer token. Synchronous when it is known. Faults: `unavailable` while its issuer's keys cannot be had. */
  identify(token: string): Verdict | Promise<Verdict>
  /** A subscription token. It identifies nobody: `identify` refuses it. */
  identifyTopic(token: string): TopicVerdict | Promise<TopicVerdict>
  /** The `X-API-Key` header. Compared in constant time. */
  identifyKey(key: string): Verdict
  /** From now on these tokens are refused and their sockets closed, on every node. Faults: `unavailable`. */
  revoke(revocation: Revocation): Promise<void>
  /** What the log says to this room; the rest is passed over. */
  hear(notice: Notice): void
  /** What is written down is read; again when entries of the log are gone. After the store's start. */
  load(): Promise<void>
  /** Whom to close when a token is revoked. */
  evictFrom(sockets: Sockets): void
  stats(): { readonly verifications: number; readonly revocations: number }
  stop(): void
}

export interface AuthDeps extends RevocationDeps {
  readonly clock: Clock
  readonly log: Pick<Log, 'info' | 'warn'>
}

/** Faults: `invalid` for keys in the configuration that cannot be used. */
export async function createAuth(deps: AuthDeps, config: AuthConfig): Promise<Auth> {
  const { clock, log } = deps
  const verifier = await createVerifier({ clock, log }, config)
  const revocations = createRevocations(deps)
  const eviction = createEviction({ clock, revocations })
  const seen = ({ marks }: Verified): void => marks && eviction.seen(marks)
  const cache = verifier && createTokenCache({ clock, malformed, revocations, seen }, verifier)
  const apiKeyHash = config.apiKey === undefined ? undefined : sha256(config.apiKey)

  return {
    identify(token) {
      const known = cache ? cache.verify(token) : noTokens
      return known instanceof Promise ? known.then(({ verdict }) => verdict) : known.verdict
    },
    identifyTopic(token) {
      const known = cache ? cache.verify(token) : noTokens
      return known instanceof Promise ? known.then(({ topic }) => topic) : known.topic
    },
    identifyKey(key) {
      const isRight = apiKeyHash !== undefined && timingSafeEqual(sha256(key), apiKeyHash)
      return isRight ? { ok: true, identity: keyHolder } : refused('the API key is not valid')
    },
    revoke: revocations.revoke,
    hear: revocations.hear,
    async load() {
      await revocations.load()
      revocations.start()
    },
    evictFrom: eviction.from,
    stats: () => ({ verifications: cache?.verifications ?? 0, revocations: revocations.size }),
    stop() {
      revocations.stop()
      eviction.stop()
      verifier?.stop()
    },
  }
}

const noTokens = neither('this server accepts no tokens: no key is configured')
const malformed = neither('the token is malformed, or too long')

/** Of equal length whatever is given, as a constant-time compare needs. */
function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
