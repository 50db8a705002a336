/** What upstream counts, by the names that `/api/metrics` has for it. */
import type { BudgetStats } from './budget-port.ts'
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

/** By name, and of keys by their place in the list: the keys themselves are told to nobody. */
export function budgetGauges(stats: readonly BudgetStats[]): Record<string, number> {
  const of = (name: string, value: (budget: BudgetStats) => number) =>
    stats.map((one): [string, number] => [`${name}{budget="${one.name}"}`, value(one)])
  const ofKeys = (name: string, value: (key: BudgetStats['keys'][number]) => number | undefined) =>
    stats.flatMap((one) =>
      one.keys.flatMap((key): [string, number][] => {
        const number = value(key)
        return number === undefined
          ? []
          : [[`${name}{budget="${one.name}",key="${key.index}"}`, number]]
      }),
    )
  return Object.fromEntries([
    ...of('belfry_budget_waiting', ({ waiting }) => waiting),
    ...of('belfry_budget_refused_total', ({ refused }) => refused),
    ...of('belfry_budget_timed_out_total', ({ timedOut }) => timedOut),
    ...of('belfry_budget_waited_seconds_total', ({ waitedMs }) => waitedMs / 1_000),
    ...ofKeys('belfry_budget_calls_total', ({ calls }) => calls),
    ...ofKeys('belfry_budget_limited_total', ({ limited }) => limited),
    ...ofKeys('belfry_budget_failed_total', ({ failed }) => failed),
    ...ofKeys('belfry_budget_lost_total', ({ lost }) => lost),
    ...ofKeys('belfry_budget_units', ({ units }) => units),
    ...ofKeys('belfry_budget_in_use', ({ inUse }) => inUse),
    ...ofKeys('belfry_budget_pace', ({ pace }) => pace),
    ...ofKeys('belfry_budget_stopped_seconds', ({ stoppedMs }) => stoppedMs / 1_000),
    ...ofKeys('belfry_budget_quota_left', ({ quotaLeft }) => quotaLeft),
  ])
}
