/** The topics in Redis: what the broker asks there, with its bounds. */
import type { Clock } from '../lib/clock.ts'
import type { Redis } from '../store/store.ts'
import { forgetScript, publishScript, stateScript } from './broker-scripts.ts'
import { stateOf, type State } from './broker-state.ts'
import { keepOf, type Match } from './hub.ts'
import type { Position } from './recovery.ts'
import type { Once } from './broker.ts'

/** In which every topic is compared with Redis once, whatever happens: a lost message of a quiet topic comes to light. */
export const compareMs = 5 * 60_000

/** A topic that nobody publishes to keeps its number in Redis three times as long as it is compared. */
const quietMs = 3 * compareMs

/** A topic keeps its number so long after its last publication, or twice as long as its history. */
const spokenMs = 24 * 3_600_000

/** Of one answer; Redis does nothing else meanwhile. */
const stateBytesMax = 4 * 1024 * 1024

/** Where the asker is. */
export interface Has extends Position {
  readonly mark: string
}

export interface Said {
  readonly data: string
  readonly mark: string
  readonly once: Once | undefined
}

export interface Register {
  /** Where everything is told. */
  readonly channel: string
  state(match: Match, has?: Has): Promise<State>
  publish(match: Match, said: Said, ms: number): Promise<Position & { readonly isTaken: boolean }>
  forget(match: Match): Promise<void>
}

export interface RegisterDeps {
  readonly redis: Pick<Redis, 'script'>
  readonly clock: Clock
  /** Of what nobody has used: a new epoch, where one is needed. */
  readonly nextName: () => string
}

export interface RegisterOptions {
  readonly namespace: string
  /** Read at each use: it is known only later. */
  readonly source: string
}

export function createRegister(
  { redis, clock, nextName }: RegisterDeps,
  options: RegisterOptions,
): Register {
  const { namespace } = options
  const channel = `${namespace}:topics`

  const keysOf = (name: string): [meta: string, log: string, seen: string] => {
    const base = `${namespace}:{${encodeURIComponent(name)}}`
    return [`${base}:meta`, `${base}:log`, `${base}:seen:${options.source}`]
  }

  return {
    channel,
    async state({ name, plan }, { epoch, offset, mark } = { epoch: '', offset: 0, mark: '' }) {
      const [meta, entries] = keysOf(name)
      const bounds = [keepOf(plan).size, stateBytesMax, quietMs]
      const args = [channel, name, nextName(), ...bounds, epoch, offset, mark]
      const answer = await redis.script(stateScript, [meta, entries], args)
      return stateOf(answer, clock.now(), options.source)
    },
    async publish({ name, plan }, { data, mark, once }, ms) {
      const { size, ttlMs } = keepOf(plan)
      const metaMs = Math.max(spokenMs, 2 * ttlMs)
      const kept = [size, ttlMs > 0 ? ttlMs : metaMs, metaMs]
      const { seq, by } = typeof once === 'object' ? once : { seq: once ?? '', by: '' }
      const args = [channel, name, data, mark, nextName(), ...kept, seq, options.source, by]
      const answer = await redis.script(publishScript, keysOf(name), args, ms)
      const [epoch, offset, isTaken] = answer as [string, number, number]
      return { epoch, offset, isTaken: isTaken === 1 }
    },
    async forget({ name }) {
      const [meta, entries] = keysOf(name)
      await redis.script(forgetScript, [meta, entries], [channel, name])
    },
  }
}
