/**
 * What the memory tier weighs while ever new answers of 100 KB are loaded, and how long it makes the process stand
 * still for it: as it is, with full collections (as it was), and left to JavaScriptCore. Each in a process of its own.
 */
import { ways, type Weight } from './cache-memory.fixture.ts'
import { median, rounded } from './load.ts'

const requests = Number(process.env['REQUESTS'] ?? 20_000)
const mega = 1024 * 1024

async function weigh(how: string, bytesMax: number): Promise<Weight> {
  const fixture = `${import.meta.dir}/cache-memory.fixture.ts`
  const child = Bun.spawn([process.execPath, fixture, how, String(bytesMax), String(requests)], {
    stdout: 'pipe',
    stderr: 'inherit',
  })
  return JSON.parse(await new Response(child.stdout).text()) as Weight
}

export async function run(): Promise<void> {
  const rows: Record<string, string | number>[] = []
  for (const bound of [64, 128]) {
    for (const how of ways) {
      const { peakBytes, afterBytes, stallsMs, cpuMs } = await weigh(how, bound * mega)
      rows.push({
        how,
        'bound MiB': bound,
        'peak / bound': rounded(peakBytes / bound / mega),
        'after / bound': rounded(afterBytes / bound / mega),
        collections: stallsMs.length,
        'median ms': rounded(median([0, ...stallsMs])),
        'longest ms': rounded(Math.max(0, ...stallsMs)),
        'all ms': rounded(stallsMs.reduce((sum, one) => sum + one, 0)),
        'CPU µs a request': rounded((cpuMs * 1000) / requests),
      })
    }
  }
  console.log(`${requests} distinct keys of 100 KB`)
  console.table(rows)
}

if (import.meta.main) await run()
