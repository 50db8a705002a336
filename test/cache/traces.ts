/** What was asked for, in order: real traces (`traces/SOURCE.md`), and one made up. */
import { createRandom } from '../lib/random.ts'

async function lines(name: string): Promise<string[]> {
  const packed = await Bun.file(`${import.meta.dir}/traces/${name}`).bytes()
  return new TextDecoder().decode(Bun.gunzipSync(packed)).trimEnd().split('\n')
}

/** Pages of a web shop, December: 95,607 requests, 13,756 pages. */
export const web12 = (): Promise<string[]> => lines('cache_trace_web12.txt.gz')

/** A web server of NASA, 1995-08-01: 30,969 requests, 2,088 URLs. */
export async function nasa(): Promise<string[]> {
  const [, ...rows] = await lines('nasa_http_1995-08-01.csv.gz')
  // ts, client, method, url, status, bytes: a URL may hold commas, the others do not.
  return rows.map((row) => row.split(',').slice(3, -2).join(','))
}

const zipf = { requests: 200_000, pages: 20_000, skew: 0.99, seed: 4 }
/** A crawler comes by so often, and asks for so many pages that nobody else wants. */
const scan = { every: 20_000, pages: 4_000 }

/** Zipf 0.99, with a scan in it every 20,000 requests. */
export function zipfWithScans(): string[] {
  const random = createRandom(zipf.seed)
  const upTo: number[] = []
  let sum = 0
  for (let rank = 1; rank <= zipf.pages; rank++) upTo.push((sum += rank ** -zipf.skew))
  const pick = (): number => {
    const point = random.next() * sum
    let [low, high] = [0, zipf.pages - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((upTo[middle] as number) < point) low = middle + 1
      else high = middle
    }
    return low
  }
  const trace: string[] = []
  for (let at = 0, crawled = 0; at < zipf.requests; at++) {
    trace.push(`/api/posts/${pick()}`)
    if (at % scan.every !== scan.every - 1) continue
    for (let n = 0; n < scan.pages; n++) trace.push(`/api/archive/${crawled++}`)
  }
  return trace
}

export const traceNames = ['web12', 'nasa', 'zipf + scans'] as const
export async function traceOf(name: (typeof traceNames)[number]): Promise<string[]> {
  if (name === 'web12') return web12()
  return name === 'nasa' ? nasa() : zipfWithScans()
}
