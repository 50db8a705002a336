/** `bun run bench`: every bench, one after the other, each prints its table. `bun run bench fanout` runs one. */
import { run as cachedGet } from './cached-get.bench.ts'
import { run as fanout } from './fanout.bench.ts'
import { run as latency } from './latency.bench.ts'
import { run as memory } from './memory.bench.ts'

const benches: Readonly<Record<string, () => Promise<void>>> = {
  'cached-get': cachedGet,
  fanout,
  memory,
  latency,
}

const wanted = process.argv.slice(2)
for (const [name, run] of Object.entries(benches)) {
  if (wanted.length === 0 || wanted.includes(name)) await run()
}
