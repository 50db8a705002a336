/** `belfry replay`, as its users call it, against a server of the same folder. */
import { expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { tempFolder, until } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

const appFile = `
import { app, topic } from 'belfry'
const history = { size: 5000, ttl: '1h' }
export default app({
  name: 'said',
  topics: {
    kept: topic({ subscribe: 'public', history, persist: true }),
    again: topic({ subscribe: 'public', history }),
  },
})
`

const env = { API_KEY: 'k'.repeat(32) }

const spanOf = (list: readonly { at: string }[]): number =>
  Date.parse(list.at(-1)?.at ?? '') - Date.parse(list[0]?.at ?? '')

test('what a topic said is said again in another, all of it, in order, within the times asked for', async () => {
  using folder = tempFolder()
  writeFileSync(folder.file('app.ts'), appFile)
  await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path, env })
  const headers = { 'content-type': 'application/json', 'x-api-key': env.API_KEY }
  const publish = async (n: number): Promise<void> => {
    const body = JSON.stringify({ channel: 'kept', data: { n, text: 'ü "quoted"' } })
    const { status } = await fetch(`${server.url}/api/publish`, { method: 'POST', headers, body })
    expect(status).toBe(200)
  }
  const saidOf = async (topic: string) => {
    const url = `${server.url}/api/topics/${topic}/history?limit=1000`
    const answer = (await (await fetch(url)).json()) as {
      publications: { at: string; data: { n: number; text: string } }[]
    }
    return answer.publications
  }
  const replay = (...args: readonly string[]) =>
    runBelfry({ args: ['replay', 'app.ts', ...args], cwd: folder.path, env })

  const count = 620
  for (let n = 0; n < count; n += 1) await publish(n)
  const fast = await replay('kept', '--into', 'again', '--speed', 'max')
  expect(fast).toMatchObject({
    ...{ exitCode: 0, stderr: '' },
    stdout: '620 publications of kept were said again in again\n',
  })
  const kept = await saidOf('kept')
  const again = await saidOf('again')
  expect(again.map(({ data }) => data)).toEqual(kept.map(({ data }) => data))

  // The last twenty, with their pauses, so slowly that they take two seconds: in all it takes no less.
  const last = kept.slice(-20)
  const since = last[0]?.at ?? ''
  // It knows thousandths.
  const speed = Math.floor(spanOf(last) / 2) / 1_000
  const startedAt = Date.now()
  const slow = await replay('kept', '--into', 'again', '--since', since, '--speed', `${speed}`)
  expect(slow.exitCode).toBe(0)
  await until(async () => (await saidOf('again')).length >= count + 20, 'said')
  const paced = (await saidOf('again')).slice(count)
  expect(paced.at(-1)?.data).toEqual({ n: count - 1, text: 'ü "quoted"' })
  // From before the first, which a busy machine may hold up: the last does not come too soon.
  expect(Date.parse(paced.at(-1)?.at ?? '') - startedAt).toBeGreaterThanOrEqual(2_000)

  // What cannot be is said before anything is.
  for (const [args, message] of [
    [['kept'], 'say where to: --into <topic>'],
    [['kept', '--into', 'kept'], 'a topic is not replayed into itself'],
    [['kept', '--into', 'again', '--speed', '0'], '--speed 0 is neither a number above 0 nor max'],
    [['kept', '--into', 'again', '--since', 'now'], '--since now is neither'],
    [['none', '--into', 'again'], 'no declared topic has this name'],
    [['kept', '--into', 'none'], 'no declared topic'],
  ] as const) {
    const { exitCode, stderr } = await replay(...args)
    expect(exitCode).not.toBe(0)
    expect(stderr).toContain(message)
  }
  expect(await saidOf('again')).toHaveLength(paced.length + count)
}, 60_000)
