/**
 * (a) A cached GET, against a raw `Bun.serve` handler and an Elysia handler that return the same
 * bytes. Server CPU per request, in rounds that visit every peer, so that drift hits all alike.
 */
import { cpuSeconds, httpLoad, median } from './load.ts'

const peers = ['raw', 'elysia', 'belfry'] as const
const rounds = 7
const requests = 40_000
const connections = 32

interface Child {
  readonly name: (typeof peers)[number]
  readonly process: Bun.Subprocess<'ignore', 'pipe', 'inherit'>
  readonly port: number
  readonly path: string
  readonly bytes: number
  readonly microseconds: number[]
}

async function start(name: (typeof peers)[number]): Promise<Child> {
  const process_ = Bun.spawn([process.execPath, `${import.meta.dir}/cached-get.server.ts`, name], {
    stdout: 'pipe',
    stderr: 'inherit',
    stdin: 'ignore',
  })
  for await (const chunk of process_.stdout) {
    const said = JSON.parse(new TextDecoder().decode(chunk)) as Omit<Child, 'name' | 'process'>
    return { ...said, name, process: process_, microseconds: [] }
  }
  throw new Error(`${name} did not start`)
}

export async function run(): Promise<void> {
  const children = await Promise.all(peers.map(start))
  try {
    for (let round = -1; round < rounds; round++) {
      for (const child of children) {
        const before = await cpuSeconds(child.process.pid)
        await httpLoad({ ...child, connections, requests })
        const used = (await cpuSeconds(child.process.pid)) - before
        // The first round warms up.
        if (round >= 0) child.microseconds.push((used * 1e6) / requests)
      }
    }
  } finally {
    for (const { process: one } of children) one.kill()
  }
  const raw = median(children[0]?.microseconds ?? [])
  console.log(
    `cached GET, ${children[0]?.bytes} bytes, ${connections} connections, median of ${rounds} rounds of ${requests}`,
  )
  console.table(
    children.map(({ name, microseconds }) => ({
      peer: name,
      'server µs/request': Math.round(median(microseconds) * 10) / 10,
      'of raw': Math.round((raw / median(microseconds)) * 100) / 100,
    })),
  )
}

if (import.meta.main) await run()
