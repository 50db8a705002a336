/**
 * What stands between whoever publishes and the hub, in one order:
 *
 *   client ─(rule)─► message ─► limit ─┐
 *   server API ─────► message ─────────┼─► encode ─► conflate ─► hub
 *   live, feeds, the app's routes ─────┘
 *
 * Invariant: a topic's history and its subscribers have the same publications: what is refused or replaced
 * here has no offset.
 */
import { Fault, type FieldProblem } from '../fault.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../observe/log.ts'
import { createConflator, type ConflateLimits, type ConflatePlan } from './conflate.ts'
import type { Encoded, Hub, Match } from './hub.ts'
import { errors, type ProtocolError } from './protocol.ts'
import {
  createPublishLimiter,
  type Author,
  type MakeLimits,
  type PublishLimiter,
  type PublishLimitPlan,
} from './publish-limit.ts'
import type { Position } from './recovery.ts'
import { createRepeats } from './repeats.ts'

/** A declared topic as far as publishing is concerned. */
export interface PublishPlan {
  readonly message?: CheckMessage | undefined
  readonly limit?: PublishLimitPlan | undefined
  readonly conflate?: ConflatePlan | undefined
}

/** Whether data is what the topic's schema says, and if so without what that does not name. */
export type CheckMessage = (data: unknown) => CheckedMessage

export type CheckedMessage =
  | { readonly ok: true; readonly data: unknown }
  | { readonly ok: false; readonly fields: readonly FieldProblem[] }

export interface Publisher {
  /** As the server: nothing is asked. Faults: `not_found`, `invalid`, `too_large`, `unavailable`. */
  publish(topic: string, data: unknown): Position
  /** As the server API: the topic's `message` is asked. Faults: the same. */
  submit(topic: string, data: unknown, options?: SubmitOptions): Promise<Position>
  /** One value to many topics, encoded once. Faults of the value are thrown, of a topic returned. */
  broadcast(
    topics: readonly string[],
    data: unknown,
    options?: SubmitOptions,
  ): Promise<(Position | Fault)[]>
  /** As a client that the topic's rule has let in. What is refused is returned. */
  publishAs(author: Author, match: Match, data: unknown): ProtocolError | undefined
  /** What waits for its interval goes now. */
  flush(): void
}

export interface SubmitOptions {
  /** The same key again on the same topic, within five minutes: nothing, and the first one's position. */
  readonly key?: string | undefined
}

export interface PublisherDeps {
  readonly hub: Hub
  readonly clock: Clock
  readonly log: Log
  readonly limits: MakeLimits
}

export function createPublisher(deps: PublisherDeps, limits: ConflateLimits): Publisher {
  const { hub, clock, log } = deps
  const limiters = new Map<PublishLimitPlan, PublishLimiter>()

  const late = (topic: string, encoded: Encoded): void => {
    try {
      hub.publish(topic, encoded)
    } catch (error) {
      log.error('realtime.conflated-lost', { topic, error })
    }
  }
  const repeats = createRepeats(clock)
  const conflator = createConflator<Encoded>({ clock, go: late }, limits)

  const limiterOf = (plan: PublishLimitPlan): PublishLimiter => {
    const found = limiters.get(plan)
    if (found) return found
    const made = createPublishLimiter(deps.limits, plan)
    limiters.set(plan, made)
    return made
  }

  const matchOf = (topic: string): Match => {
    const match = hub.match(topic)
    if (match) return match
    throw new Fault('not_found', `no declared topic matches ${topic}`)
  }

  /** App code. */
  const keyOf = (topic: string, { key }: ConflatePlan, data: unknown): string => {
    if (!key) return ''
    try {
      const given = key(data)
      if (typeof given === 'string' || typeof given === 'number') return String(given)
      log.error('realtime.key-invalid', { topic })
    } catch (error) {
      log.error('realtime.key-threw', { topic, error })
    }
    throw new Fault('internal', 'internal error')
  }

  const send = ({ name, plan }: Match, data: unknown, encoded: Encoded): Position => {
    const { conflate } = plan
    if (!conflate) return hub.publish(name, encoded)
    const key = keyOf(name, conflate, data)
    if (!conflator.holds(name, conflate.everyMs, key, encoded)) return hub.publish(name, encoded)
    const topic = hub.peek(name)
    // What waits has no offset yet: the answer is where the topic stands.
    return topic ? { offset: topic.offset, epoch: topic.epoch } : { offset: 0, epoch: '' }
  }

  /** `encoded`: of `data`, if that is known already. */
  const submit = (
    name: string,
    data: unknown,
    { key }: SubmitOptions = {},
    encoded?: Encoded,
  ): Position | Promise<Position> => {
    const match = matchOf(name)
    const publish = (): Position | Promise<Position> => {
      if (!match.plan.message) return send(match, data, encoded ?? hub.encode(data))
      const checked = checkedBy(match, data)
      return send(match, checked, hub.encode(checked))
    }
    return key === undefined ? publish() : repeats.once(name, key, publish)
  }

  return {
    publish: (name, data) => send(matchOf(name), data, hub.encode(data)),
    submit: async (name, data, options) => await submit(name, data, options),
    async broadcast(names, data, options) {
      const encoded = hub.encode(data)
      const outcomes = names.map((name) => settled(() => submit(name, data, options, encoded)))
      return await Promise.all(outcomes)
    },
    publishAs(author, match, data) {
      const { message, limit } = match.plan
      const checked = message?.(data) ?? { ok: true, data }
      if (!checked.ok) return malformed(checked.fields)
      if (limit && !limiterOf(limit).take(author)) return errors.tooMany
      try {
        send(match, checked.data, hub.encode(checked.data))
        return undefined
      } catch (error) {
        if (error instanceof Fault && error.code === 'internal') return errors.internal
        // Too large as we write it, nested too deep, or no room for one more topic.
        log.debug('realtime.publish-refused', { topic: match.name, error })
        return errors.limit
      }
    },
    flush: conflator.flush,
  }
}

async function settled(run: () => Position | Promise<Position>): Promise<Position | Fault> {
  try {
    return await run()
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown
    throw thrown
  }
}

/** Faults: `invalid`. */
function checkedBy({ name, plan }: Match, data: unknown): unknown {
  const checked = plan.message?.(data) ?? { ok: true, data }
  if (checked.ok) return checked.data
  throw new Fault('invalid', `the data is no message of ${name}`, { fields: checked.fields })
}

/** So many problems, and so much of each, fit into an error that a client shows. */
const problemsMax = 3
const problemLengthMax = 200

function malformed(fields: readonly FieldProblem[]): ProtocolError {
  const said = fields
    .slice(0, problemsMax)
    .map(({ field, message }) => `${field}: ${message}`.slice(0, problemLengthMax))
  return { ...errors.badRequest, message: `${errors.badRequest.message}: ${said.join('; ')}` }
}
