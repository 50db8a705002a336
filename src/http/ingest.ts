/**
 * `POST /api/<collection>/ingest` with `X-API-Key`: rows that a publisher pushes, as `[{…}, …]` or `{…}`, answered
 * `{"rows":…,"changed":…,"seq":…}`. No rule of the collection is asked; a key with scopes needs `write:<collection>`.
 */
import type { CollectionPlan, Ingest } from '../collections/collections.ts'
import { Fault } from '../fault.ts'
import { readJson } from './body.ts'
import { visitHeaders, type Door } from './visit.ts'

/** A thousand rows of 4 KB. */
const ingestBytesMax = 4 * 1024 * 1024

/** Faults: `unauthenticated`, `denied`, `invalid`, `too_large`, `too_many`, `conflict`, `unavailable`. */
export function createIngestDoor(
  { ingest, tick }: { readonly ingest: Ingest; readonly tick: () => number },
  plan: CollectionPlan,
): Door {
  return async (request, visit) => {
    const { identity } = visit
    if (identity.kind === 'scoped') {
      if (!identity.may('write', plan.path)) {
        throw new Fault('denied', `this API key may not write ${plan.path}`)
      }
    } else if (identity.kind !== 'key') {
      throw new Fault('unauthenticated', 'rows are pushed with the API key in X-API-Key')
    }
    const body = await readJson(request, ingestBytesMax)
    const { rows, changed, seq } = await ingest(plan, Array.isArray(body) ? body : [body])
    return new Response(JSON.stringify({ rows, changed, seq: seq ?? null }), {
      headers: {
        ...visitHeaders(visit, tick()),
        'content-type': 'application/json',
        'cache-control': 'no-store',
      },
    })
  }
}
