import { describe, expect, test } from 'bun:test'
import { createLog, type LogOptions } from '../../src/observe/log.ts'
import { createMetrics } from '../../src/observe/metrics.ts'

function linesOf(options: Partial<LogOptions>, use: (log: ReturnType<typeof createLog>) => void) {
  const lines: string[] = []
  const write = (line: string) => void lines.push(line)
  use(createLog({ level: 'info', now: () => 0, write, isForPeople: false, ...options }))
  return lines
}

describe('log', () => {
  test('one JSON object a line, from its level on, with errors readable', () => {
    const [line, ...rest] = linesOf({}, (log) => {
      log.debug('hidden')
      log.warn('it.failed', { error: new Error('outer', { cause: new Error('inner') }), n: 1 })
    })
    expect(rest).toEqual([])
    expect(JSON.parse(line ?? '')).toMatchObject({
      at: '1970-01-01T00:00:00.000Z',
      level: 'warn',
      event: 'it.failed',
      error: { message: 'outer', stack: expect.any(String), cause: { message: 'inner' } },
      n: 1,
    })
  })

  test('for people: one line too, whatever is in it', () => {
    const lines = linesOf({ isForPeople: true }, (log) =>
      log.info('a.b', { text: 'x\n  y', n: [1] }),
    )
    expect(lines).toEqual(['00:00:00 info  a.b text=x y n=[1]\n'])
  })
})

describe('metrics', () => {
  test('are Prometheus text: counts by route and status, cumulative buckets, gauges as they are now', () => {
    const metrics = createMetrics()
    let connections = 1
    metrics.gauges(() => ({ belfry_connections: connections, belfry_reads_total: 7 }))
    const observe = metrics.route('GET /x')
    observe(200, 0.2)
    observe(200, 3)
    observe(500, 60_000)
    connections = 2
    const lines = metrics.text().split('\n')
    for (const line of [
      'belfry_requests_total{route="GET /x",status="200"} 2',
      'belfry_requests_total{route="GET /x",status="500"} 1',
      'belfry_request_duration_seconds_bucket{route="GET /x",le="0.0001"} 0',
      'belfry_request_duration_seconds_bucket{route="GET /x",le="0.00025"} 1',
      'belfry_request_duration_seconds_bucket{route="GET /x",le="0.005"} 2',
      'belfry_request_duration_seconds_bucket{route="GET /x",le="5"} 2',
      'belfry_request_duration_seconds_bucket{route="GET /x",le="+Inf"} 3',
      'belfry_request_duration_seconds_count{route="GET /x"} 3',
      '# TYPE belfry_connections gauge',
      'belfry_connections 2',
      '# TYPE belfry_reads_total counter',
    ]) {
      expect(lines).toContain(line)
    }
    expect(metrics.text().endsWith('\n')).toBe(true)
  })

  test('the lines of one name stand together under one type, whoever gave them in whatever order', () => {
    const metrics = createMetrics()
    metrics.gauges(() => ({ 'a{n="1"}': 1, 'b{n="1"}': 2, 'a{n="2"}': 3 }))
    metrics.gauges(() => ({ 'b{n="2"}': 4 }))
    const lines = metrics.text().trimEnd().split('\n').slice(-6)
    expect(lines).toEqual([
      ...['# TYPE a gauge', 'a{n="1"} 1', 'a{n="2"} 3'],
      ...['# TYPE b gauge', 'b{n="1"} 2', 'b{n="2"} 4'],
    ])
  })
})
