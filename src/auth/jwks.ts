/**
 * An issuer's keys, from a URL or a file, in a loop of our own:
 *
 *   start ─► load ─► keys ─ each 10 min ─► load ─ failed ─► again after 30 s; the old keys are good for 24 h
 *   a token names a key that is not here ─► load, unless one ended within 30 s: whoever waits shares it
 *
 * Invariants: one load at a time; two loads are 30 s apart whatever comes of them and whoever asks, so neither
 * an issuer that is down nor tokens with made-up names are a flood; `generation` counts sets that differ.
 */
import { fileURLToPath } from 'node:url'
import { Fault } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { keysOfSet, type VerifyKey } from './keys.ts'

const refreshMs = 10 * 60_000
const cooldownMs = 30_000
const lookMs = 5_000

/** Without any news an issuer's keys are good for so long. */
const staleMsMax = 24 * 60 * 60_000

/** Requests may wait for it. */
const loadMsMax = 5_000

/** A hundred keys of 4,096 bits with their certificates. */
const bytesMax = 512 * 1024

/** Where keys come from. */
export interface KeySource {
  /** Another one when the keys are others. */
  readonly generation: number
  /** Undefined: there are none yet, or they are too old. */
  keys(): readonly VerifyKey[] | undefined
  /** A key is missing. Resolves when it has been looked for, or at once if that was done lately. */
  seek(): Promise<void>
  stop(): void
}

/** Of the configuration: the same for ever. */
export function fixedKeys(keys: readonly VerifyKey[]): KeySource {
  return { generation: 0, keys: () => keys, seek: () => Promise.resolve(), stop() {} }
}

export interface JwksDeps {
  readonly clock: Clock
  readonly log: Pick<Log, 'info' | 'warn'>
}

/** Resolves when the first load has ended, well or not: an issuer that is down stops nobody from starting. */
export async function openJwks({ clock, log }: JwksDeps, url: URL): Promise<KeySource> {
  // A URL may hold a password or a token.
  const name = url.protocol === 'file:' ? url.pathname : url.host + url.pathname
  const allowsSecrets = url.protocol === 'file:'
  let keys: readonly VerifyKey[] | undefined
  let text = ''
  let generation = 0
  let loadedAt = -Infinity
  let endedAt = -Infinity
  let loading: Promise<void> | undefined

  const attempt = async (): Promise<void> => {
    try {
      const loaded = await readText(url)
      if (loaded !== text || !keys) {
        keys = await keysOfSet(JSON.parse(loaded), { allowsSecrets })
        text = loaded
        generation++
        log.info('auth.jwks_loaded', { url: name, keys: keys.length })
      }
      loadedAt = clock.tick()
    } catch (error) {
      log.warn('auth.jwks_failed', { url: name, error })
    }
    endedAt = clock.tick()
    loading = undefined
  }
  const load = (): Promise<void> => (loading ??= attempt())

  const isCool = (): boolean => clock.tick() - endedAt >= cooldownMs
  const cancel = clock.every(lookMs, () => {
    if (clock.tick() - loadedAt >= refreshMs && isCool()) void load()
  })
  await load()

  return {
    get generation() {
      return generation
    },
    keys: () => (clock.tick() - loadedAt < staleMsMax ? keys : undefined),
    async seek() {
      if (loading || isCool()) await load()
    },
    stop: cancel,
  }
}

async function readText(url: URL): Promise<string> {
  const bytes = url.protocol === 'file:' ? await readFile(url) : await fetchBytes(url)
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
}

async function readFile(url: URL): Promise<Uint8Array> {
  const file = Bun.file(fileURLToPath(url))
  if (file.size > bytesMax) throw tooLarge()
  return await file.bytes()
}

async function fetchBytes(url: URL): Promise<Uint8Array> {
  const answer = await fetch(url, {
    headers: { accept: 'application/jwk-set+json, application/json' },
    // Keys come from where the operator said.
    redirect: 'error',
    signal: AbortSignal.timeout(loadMsMax),
  })
  if (!answer.ok) throw new Fault('unavailable', `the issuer answers with ${answer.status}`)
  const chunks: Uint8Array[] = []
  let total = 0
  for await (const chunk of answer.body ?? []) {
    total += chunk.byteLength
    if (total > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function tooLarge(): Fault {
  return new Fault('too_large', `a JWK set is at most ${bytesMax} bytes`)
}
