/**
 * Counters and histograms as Prometheus text. Written to on every request: an increment is a number
 * in an array, and text is made only when somebody asks.
 *
 * Label values come from code (route patterns, statuses), never from requests: their number is bounded.
 */

/** Upper edges in milliseconds: a cached hit is tens of microseconds, an upstream call seconds. */
const edgesMs = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 1000, 5000] as const

export type Gauges = () => Readonly<Record<string, number>>

/** One answered request of a route. */
export type Observe = (status: number, ms: number) => void

export interface Metrics {
  /** Asked for once per route, called on every request: the name is looked up only once. */
  route(name: string): Observe
  /** One query, by the name its statement was given in code. */
  query(name: string, ms: number): void
  /**
   * Read when asked for: `{ belfry_connections: 3 }`, or with labels, `name{policy="api"}`. A name ending in `_total`
   * is a counter.
   */
  gauges(read: Gauges): void
  text(): string
}

/** HTTP statuses are below this. */
const statusEnd = 600

interface Times {
  readonly buckets: Float64Array
  sumMs: number
  count: number
}

interface Route extends Times {
  readonly byStatus: Float64Array
}

const noTimes = (): Times => ({
  buckets: new Float64Array(edgesMs.length + 1),
  sumMs: 0,
  count: 0,
})

function count(times: Times, ms: number): void {
  const { buckets } = times
  let at = 0
  while (at < edgesMs.length && ms > (edgesMs[at] ?? 0)) at++
  buckets[at] = (buckets[at] ?? 0) + 1
  times.sumMs += ms
  times.count++
}

export function createMetrics(): Metrics {
  const routes = new Map<string, Route>()
  const queries = new Map<string, Times>()
  const readers: Gauges[] = []

  return {
    route(name) {
      const route: Route = routes.get(name) ?? {
        byStatus: new Float64Array(statusEnd),
        ...noTimes(),
      }
      routes.set(name, route)
      const { byStatus } = route
      return (status, ms) => {
        byStatus[status] = (byStatus[status] ?? 0) + 1
        count(route, ms)
      }
    },
    query(name, ms) {
      let times = queries.get(name)
      if (!times) queries.set(name, (times = noTimes()))
      count(times, ms)
    },
    gauges(read) {
      readers.push(read)
    },
    text() {
      return (
        [
          ...requestLines(routes),
          ...queryLines(queries),
          ...gaugeLines(readers.flatMap((read) => Object.entries(read()))),
        ].join('\n') + '\n'
      )
    },
  }
}

function requestLines(routes: ReadonlyMap<string, Route>): string[] {
  const counts = ['# TYPE belfry_requests_total counter']
  const times = ['# TYPE belfry_request_duration_seconds histogram']
  for (const [name, route] of routes) {
    for (const [status, count] of route.byStatus.entries()) {
      if (count > 0)
        counts.push(`belfry_requests_total{route="${name}",status="${status}"} ${count}`)
    }
    times.push(...histogram('belfry_request_duration_seconds', `route="${name}"`, route))
  }
  return [...counts, ...times]
}

function queryLines(queries: ReadonlyMap<string, Times>): string[] {
  if (queries.size === 0) return []
  const lines = [...queries].flatMap(([name, times]) =>
    histogram('belfry_query_duration_seconds', `query="${name}"`, times),
  )
  return ['# TYPE belfry_query_duration_seconds histogram', ...lines]
}

function histogram(metric: string, label: string, { buckets, sumMs, count: all }: Times): string[] {
  const lines: string[] = []
  let below = 0
  for (const [at, edge] of edgesMs.entries()) {
    below += buckets[at] ?? 0
    lines.push(`${metric}_bucket{${label},le="${edge / 1000}"} ${below}`)
  }
  return [
    ...lines,
    `${metric}_bucket{${label},le="+Inf"} ${all}`,
    `${metric}_sum{${label}} ${sumMs / 1000}`,
    `${metric}_count{${label}} ${all}`,
  ]
}

/** A name's lines stand together, under one type: the format wants it, and who gives them need not know. */
function gaugeLines(values: readonly (readonly [string, number])[]): string[] {
  const byName = Map.groupBy(values, ([labelled]) => labelled.split('{', 1)[0] ?? '')
  return [...byName].flatMap(([name, some]) => [
    `# TYPE ${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}`,
    ...some.map(([labelled, value]) => `${labelled} ${value}`),
  ])
}
