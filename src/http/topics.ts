/**
 * `GET /api/topics/<topic>/last`: what a topic said last, for whoever may subscribe to it and for the API key. Of a
 * feed's topic it is the feed's value, asked for if nobody has yet; of any other the newest of its history.
 *
 * A value is good for the feed's interval from when upstream said it (`Age`): caches outside ask no more often. One that
 * upstream has failed to renew has `"stale": true` and `"as_of"`, and no cache keeps it.
 */
import { keyHolder, type Identity } from '../auth/auth.ts'
import { Fault } from '../fault.ts'
import type { Last } from '../feeds/feeds.ts'
import type { Clock } from '../lib/clock.ts'
import { etagOf } from '../lib/etag.ts'
import type { Realtime } from '../realtime/realtime.ts'
import { conditional } from './etag.ts'
import { visitHeaders, type Door } from './visit.ts'

const pathPattern = /^https?:\/\/[^/]+\/api\/topics\/([^/?]+)\/last\/?(?:\?|$)/

export interface LastDeps {
  readonly realtime: Pick<Realtime, 'check' | 'replay'>
  readonly last: (pattern: string, topic: string) => Promise<Last> | undefined
  readonly clock: Clock
}

interface Answer {
  readonly text: string
  readonly asOfMs: number
  readonly state: 'hit' | 'miss' | 'stale' | 'bypass'
  readonly maxAgeS: number
}

/** Faults: `not_found`, `denied`, `unavailable`, `timeout`. */
export function createLastDoor({ realtime, last, clock }: LastDeps): Door {
  const ofHistory = async (identity: Identity, topic: string): Promise<Answer> => {
    const newest = { sinceMs: 0, untilMs: Number.MAX_SAFE_INTEGER, after: undefined }
    const { publications } = await realtime.replay(identity, topic, {
      ...newest,
      limit: 1,
      reverse: true,
    })
    const [one] = publications
    if (!one) throw new Fault('not_found', `nothing is known of ${topic}`)
    return { text: one.data, asOfMs: one.atMs, state: 'bypass', maxAgeS: 0 }
  }

  const ofFeed = ({ text, asOfMs, isStale, isHit, intervalMs }: Last): Answer => {
    if (isStale) return { text, asOfMs, state: 'stale', maxAgeS: 0 }
    return {
      ...{ text, asOfMs, state: isHit ? 'hit' : 'miss' },
      maxAgeS: Math.max(1, Math.ceil(intervalMs / 1000)),
    }
  }

  return async (request, visit) => {
    const topic = topicOf(request)
    const { identity } = visit
    const isReader = identity.kind === 'scoped' && identity.may('read', topic)
    const asker = isReader ? keyHolder : identity
    const { pattern, subscribe } = realtime.check(asker, topic)
    const value = await last(pattern, topic)
    const { text, asOfMs, state, maxAgeS } = value ? ofFeed(value) : await ofHistory(asker, topic)
    const scope = subscribe === 'public' ? 'public' : 'private'
    const etag = etagOf(text)
    const headers: Record<string, string> = {
      ...visitHeaders(visit, clock.tick()),
      'content-type': 'application/json',
      etag,
      'cache-control': `${scope}, ${maxAgeS > 0 ? `max-age=${maxAgeS}` : 'no-cache'}`,
      age: String(Math.max(0, Math.floor((clock.now() - asOfMs) / 1000))),
      'x-cache': state,
    }
    if (scope === 'private') headers['vary'] = 'authorization, origin'
    return conditional(request, etag, headers, text)
  }
}

function topicOf({ url }: Request): string {
  try {
    return decodeURIComponent(pathPattern.exec(url)?.[1] ?? '')
  } catch {
    throw new Fault('not_found', 'no declared topic has this name')
  }
}
