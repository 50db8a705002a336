/**
 * `GET` and `POST /api/admin/mode`, for administrators, and the same for the command line: how loaded this node is, what
 * it does about it, and what it is to do. `{"mode":"emergency","for":"10m"}`; `{}` only asks.
 */
import { parseDurationMs } from '../lib/duration.ts'
import { modes, type Mode, type Overload } from '../overload/overload.ts'
import { requireAdmin } from './admin.ts'
import { readJson } from './body.ts'
import { readFields } from './fields.ts'
import { visitHeaders, type Door } from './visit.ts'

export interface ModeDeps {
  readonly overload: Pick<Overload, 'set' | 'status'>
  /** `clock.tick()`. */
  readonly tick: () => number
}

/** Faults: `unauthenticated`, `denied`, `invalid`. */
export function createModeDoor({ overload, tick }: ModeDeps): Door {
  return async (request, visit) => {
    requireAdmin(visit)
    if (request.method === 'POST') await setMode(overload, await readJson(request))
    return new Response(JSON.stringify(overload.status()), {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}

/** Faults: `invalid`. */
export async function setMode(overload: Pick<Overload, 'set'>, body: unknown): Promise<void> {
  const fields = readFields(body, ['mode', 'for'])
  const wanted = fields.any('mode')
  const mode = modes.find((one) => one === wanted)
  if (wanted !== undefined && !mode) fields.problem('mode', `must be one of ${modes.join(', ')}`)
  const length = fields.any('for')
  const forMs = length === undefined ? undefined : parseDurationMs(length)
  if (length !== undefined && forMs === undefined) {
    fields.problem('for', 'must be a duration like 10m')
  }
  if (forMs !== undefined && wanted === undefined) fields.problem('for', 'is for a mode')
  if (forMs !== undefined && mode === 'auto') fields.problem('for', 'is for a mode other than auto')
  const given: readonly [Mode | undefined, number | undefined] = fields.done([mode, forMs])
  if (given[0]) await overload.set(given[0], given[1])
}
