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
  /** Read when asked for: `{ belfry_connections: 3 }`. A name ending in `_total` is a counter. */
  gauges(read: Gauges): void
  text(): string
}

/** HTTP statuses are below this. */
const statusEnd = 600

interface Route {
  readonly byStatus: Float64Array
  readonly buckets: Float64Array
  sumMs: number
  count: number
}

export function createMetrics(): Metrics {
  const routes = new Map<string, Route>()
  const readers: Gauges[] = []

  return {
    route(name) {
      const route: Route = routes.get(name) ?? {
        byStatus: new Float64Array(statusEnd),
        buckets: new Float64Array(edgesMs.length + 1),
        sumMs: 0,
        count: 0,
      }
      routes.set(name, route)
      const { byStatus, buckets } = route
      return (status, ms) => {
        byStatus[status] = (byStatus[status] ?? 0) + 1
        let at = 0
        while (at < edgesMs.length && ms > (edgesMs[at] ?? 0)) at++
        buckets[at] = (buckets[at] ?? 0) + 1
        route.sumMs += ms
        route.count++
      }
    },
    gauges(read) {
      readers.push(read)
    },
    text() {
      return (
        [...requestLines(routes), ...readers.flatMap((read) => gaugeLines(read()))].join('\n') +
        '\n'
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
    let below = 0
    for (const [at, edge] of edgesMs.entries()) {
      below += route.buckets[at] ?? 0
      times.push(
        `belfry_request_duration_seconds_bucket{route="${name}",le="${edge / 1000}"} ${below}`,
      )
    }
    times.push(
      `belfry_request_duration_seconds_bucket{route="${name}",le="+Inf"} ${route.count}`,
      `belfry_request_duration_seconds_sum{route="${name}"} ${route.sumMs / 1000}`,
      `belfry_request_duration_seconds_count{route="${name}"} ${route.count}`,
    )
  }
  return [...counts, ...times]
}

function gaugeLines(values: Readonly<Record<string, number>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => [
    `# TYPE ${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}`,
    `${name} ${value}`,
  ])
}
