/** Budgets in the whole server: declared in the app, taken by a proxy, seen in the metrics, kept over a restart. */
import { expect, test } from 'bun:test'
import { budget, proxy } from '../../src/kit.ts'
import { tempFolder, until } from '../harness.ts'
import { startFakeUpstream } from '../lib/upstream.ts'
import { runServer } from '../server.ts'

test('a quota is kept over a restart, and keys are told to nobody', async () => {
  using folder = tempFolder()
  await using upstream = startFakeUpstream({ keys: ['k-one'] })
  const open = () =>
    runServer({
      folder,
      env: { UPSTREAM_KEYS: 'k-one' },
      app: {
        budgets: {
          jupiter: budget({
            ...{ rate: '100/s', burst: 20, quota: '3/day', header: 'x-api-key' },
            keys: (env) => env['UPSTREAM_KEYS'],
          }),
        },
        proxies: {
          '/api/prices': proxy({
            ...{ upstream: `${upstream.url}/price/v3`, private: true, read: 'public' },
            ...{ budget: 'jupiter', allow: { query: ['ids'] } },
          }),
        },
      },
    })
  const calls = (metrics: string) =>
    /belfry_budget_calls_total\{budget="jupiter",key="0"\} (\d+)/.exec(metrics)?.[1]
  {
    await using server = await open()
    const answers = await Promise.all(
      ['a', 'a', 'b'].map((id) => server.get(`/api/prices?ids=${id}`)),
    )
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    const read = async () => await (await server.get('/api/metrics')).text()
    // What is drawn next is on its way.
    const left = 'belfry_budget_quota_left{budget="jupiter",key="0"} 1'
    await until(async () => (await read()).includes(left), 'one is left')
    const metrics = await read()
    // Equal ones are one call.
    expect(calls(metrics)).toBe('2')
    expect(metrics + JSON.stringify(server.log.lines)).not.toContain('k-one')
  }
  await using server = await open()
  const ask = async (id: string) => (await server.get(`/api/prices?ids=${id}`)).status
  expect(await ask('c')).toBe(200)
  await until(async () => (await ask('d')) !== 200, 'the end of the quota')
  expect(upstream.arrivals.map(({ status }) => status)).toEqual([200, 200, 200])
  const refused = await server.get('/api/prices?ids=e')
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
})
