/** What budgets count, by the names that `/api/metrics` has for it. Keys by their place in the list, never themselves. */
import type { BudgetStats, KeyStats } from './budget-port.ts'

export function budgetGauges(budgets: readonly BudgetStats[]): Record<string, number> {
  const of = (name: string, value: (budget: BudgetStats) => number) =>
    budgets.map((one): [string, number] => [`${name}{budget="${one.name}"}`, value(one)])
  const ofKeys = (name: string, value: (key: KeyStats) => number | undefined) =>
    budgets.flatMap((budget) =>
      budget.keys.flatMap((key): [string, number][] => {
        const number = value(key)
        const labels = `{budget="${budget.name}",key="${key.index}"}`
        return number === undefined ? [] : [[`${name}${labels}`, number]]
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
    ...ofKeys('belfry_budget_units_in_use', ({ inUse }) => inUse),
    ...ofKeys('belfry_budget_pace', ({ pace }) => pace),
    ...ofKeys('belfry_budget_stopped_seconds', ({ stoppedMs }) => stoppedMs / 1_000),
    ...ofKeys('belfry_budget_quota_left', ({ quotaLeft }) => quotaLeft),
  ])
}
