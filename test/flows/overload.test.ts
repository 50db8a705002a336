/** A server that is asked more than it can do, from outside: it refuses, what matters is answered, and it recovers. */
import { expect, test } from 'bun:test'
import { tempFolder, until } from '../harness.ts'
import { spawnBelfry } from '../process.ts'

const app = `import { app } from 'belfry'
const work = (ms) => { const until = performance.now() + ms; while (performance.now() < until); return 'done' }
export default app({
  name: 'busy',
  routes: (server) =>
    server
      .get('/api/matters', () => work(1), { priority: 'high' })
      .get('/api/usual', () => work(5))
      .get('/api/spare', () => work(5), { priority: 'low' }),
})
`

/** At once; each comes again when it was answered. */
const visitors = { '/api/usual': 100, '/api/spare': 100, '/api/matters': 5 } as const
type Path = keyof typeof visitors

test('more than can be done: low ones are refused, high ones answered; and then all are again', async () => {
  using folder = tempFolder()
  await Bun.write(folder.file('app.ts'), app)
  await using server = await spawnBelfry({
    args: ['serve', 'app.ts'],
    cwd: folder.path,
    env: { OVERLOAD_MODE: 'auto', API_KEY: 'a-key-of-operators' },
  })
  const ask = async (path: string): Promise<Response> =>
    await fetch(server.url + path, { headers: { 'x-api-key': 'a-key-of-operators' } })
  const stage = async () =>
    ((await (await ask('/api/admin/mode')).json()) as { stage: string }).stage

  const counts = new Map<string, number>()
  const count = (path: string, status: number): number => counts.get(`${path} ${status}`) ?? 0
  let isOver = false
  const visit = async (path: Path): Promise<void> => {
    while (!isOver) {
      const answer = await ask(path)
      await answer.text()
      counts.set(`${path} ${answer.status}`, count(path, answer.status) + 1)
    }
  }
  const visits = Object.entries(visitors).flatMap(([path, many]) =>
    Array.from({ length: many }, () => visit(path as Path)),
  )
  await until(() => count('/api/spare', 503) > 0, 'low ones are refused', 60_000)
  expect(await stage()).toMatch(/refusing|closed/)
  const before = count('/api/matters', 200)
  await until(() => count('/api/matters', 200) > before + 20, 'high ones are answered', 60_000)
  isOver = true
  await Promise.all(visits)
  await until(async () => (await stage()) === 'normal', 'it is over', 60_000)
  for (const path of Object.keys(visitors)) expect((await ask(path)).status).toBe(200)
  expect([...counts.keys()].filter((one) => !/ (200|503)$/.test(one))).toEqual([])
}, 200_000)
