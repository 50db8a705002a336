/** What upstream counts, by the names that `/api/metrics` has for it. */
import type { UpstreamStats } from './upstream.ts'

export function upstreamGauges(stats: UpstreamStats): Record<string, number> {
  const { origins } = stats
  // Origins are the operator's, and where those redirect to: their number is bounded (origins.ts).
  const of = (name: string, value: (origin: (typeof origins)[number]) => number) =>
    origins.map((one): [string, number] => [`${name}{origin="${one.origin}"}`, value(one)])
  return {
    ...Object.fromEntries([
      ...of('belfry_upstream_calls_total', ({ calls }) => calls),
      ...of('belfry_upstream_failures_total', ({ failures }) => failures),
      ...of('belfry_upstream_breaker_open', ({ isOpen }) => Number(isOpen)),
      ...of('belfry_upstream_breaker_opened_total', ({ opened }) => opened),
    ]),
    belfry_upstream_coalesced_total: stats.coalesced,
    belfry_upstream_retries_total: stats.retries,
    belfry_upstream_not_modified_total: stats.notModified,
    belfry_upstream_bytes_total: stats.bytes,
    belfry_upstream_in_flight: stats.inFlight,
  }
}
