/** One call of an app's `load`, with its time-out, its `fetch` and its turn under the budget. */
import { Fault } from '../fault.ts'
import type { Turn } from '../upstream/upstream.ts'
import type { FeedContext } from './declare.ts'
import type { FeedPlan, FeedsDeps } from './feeds.ts'

/** So many calls in a row may fail before the log says so again: an outage is one line a while, not a flood. */
export const failuresPerLogLine = 30

export interface Asking {
  readonly keys: readonly string[]
  readonly priority: 'high' | 'normal'
  /** Had before: the first call goes by it. Undefined: each call waits for its own. */
  readonly turn: Turn | undefined
  readonly abort: AbortController
  /** What was asked for is refused: other keys might not be. */
  readonly onRefused?: () => void
}

/** Of what is asked for, and not of who asks, or how often: no such thing, or not in this way, or too much of it. */
const refusals: ReadonlySet<number> = new Set([400, 404, 410, 413, 414, 422])

/** Faults: `timeout`; whatever the app's code throws. A load that ignores its signal is left behind. */
export async function ask(deps: FeedsDeps, plan: FeedPlan, asking: Asking): Promise<unknown> {
  const { abort, turn } = asking
  const aborted = Promise.withResolvers<never>()
  abort.signal.addEventListener('abort', () => aborted.reject(abort.signal.reason))
  const cancel = deps.clock.after(plan.timeoutMs, () => {
    abort.abort(new Fault('timeout', `feed ${plan.name} took over ${plan.timeoutMs} ms`))
  })
  const loading = (async () => await plan.load(contextOf(deps, plan, asking)))()
  // Whichever loses the race may still reject, with nobody left to hear it.
  loading.catch(() => {})
  aborted.promise.catch(() => {})
  try {
    return await Promise.race([loading, aborted.promise])
  } finally {
    cancel()
    // The load made no call at all.
    turn?.drop()
  }
}

function contextOf(deps: FeedsDeps, plan: FeedPlan, asking: Asking): FeedContext {
  const { keys, priority, abort } = asking
  const { signal } = abort
  let { turn } = asking
  return {
    keys,
    async fetch(url, { statuses = [], ...init } = {}) {
      const own = turn
      turn = undefined
      const signals = init.signal ? AbortSignal.any([init.signal, signal]) : signal
      const answer = await deps.fetch(
        url,
        { ...init, signal: signals },
        { budget: plan.budget, priority, turn: own },
      )
      const { status } = answer
      if (status < 400 || statuses.includes(status)) return answer
      if (refusals.has(status)) asking.onRefused?.()
      throw new Fault('unavailable', `${new URL(url).host} answered ${status}`)
    },
    signal,
    env: deps.env,
    db: deps.db,
    now: deps.clock.now(),
    stats: deps.stats,
  }
}
