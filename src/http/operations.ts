/** Doors for operators: is it alive, and what is it doing. */
import type { Clock } from '../lib/clock.ts'
import type { Metrics } from '../observe/metrics.ts'
import { visitHeaders, type Door } from './visit.ts'

/** What `/api/health` answers with status 200, or 503 while it drains or cannot write. */
export interface Health {
  readonly status: 'ok' | 'draining' | 'failing'
  readonly app: string
  readonly version: string
  readonly uptimeMs: number
  readonly seq: number
  readonly connections: number
}

export function createHealthDoor(health: () => Health, clock: Clock): Door {
  return (_, visit) => {
    const now = health()
    return new Response(JSON.stringify(now), {
      status: now.status === 'ok' ? 200 : 503,
      headers: {
        ...visitHeaders(visit, clock.tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}

export function createMetricsDoor(metrics: Metrics, clock: Clock): Door {
  return (_, visit) =>
    new Response(metrics.text(), {
      headers: {
        ...visitHeaders(visit, clock.tick()),
        'content-type': 'text/plain; version=0.0.4; charset=utf-8',
        'cache-control': 'no-store',
      },
    })
}
