/** What the machine says of this process. */
import { openSync, readFileSync, readSync } from 'node:fs'
import { totalmem } from 'node:os'
import { dirname, join } from 'node:path'

/** Where control groups are mounted. */
const root = '/sys/fs/cgroup'

/** CPU time of this thread so far. */
export function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1_000
}

/** Time in which this thread could have run and another did. Always 0 where the kernel does not say. */
export function createStolen(): () => number {
  const text = Buffer.alloc(64)
  let file: number
  try {
    file = openSync('/proc/thread-self/schedstat', 'r')
  } catch {
    return () => 0
  }
  return () => {
    const length = readSync(file, text, 0, text.length, 0)
    return Number(text.toString('latin1', 0, length).split(' ')[1]) / 1e6
  }
}

/** How much of the memory that it may have it takes: of the machine's, or of its cgroup's if that is less. */
export function createMemory(): () => number {
  const boundBytes = Math.min(totalmem(), limitBytes(readOrNothing))
  return () => process.memoryUsage().rss / boundBytes
}

/** The least limit of this process's group and of those around it; Infinity where there is none. */
export function limitBytes(read: (path: string) => string | undefined): number {
  let least = Infinity
  for (const line of (read('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (path === undefined) continue
    const isUnified = controllers === ''
    if (!isUnified && !controllers?.split(',').includes('memory')) continue
    const [mount, file] = isUnified
      ? [root, 'memory.max']
      : [join(root, 'memory'), 'memory.limit_in_bytes']
    for (let at = path; ; at = dirname(at)) {
      // `max`, or a number near 2^63, is no limit.
      const bytes = Number(read(join(mount, at, file))?.trim())
      if (bytes > 0) least = Math.min(least, bytes)
      if (at === '/') break
    }
  }
  return least
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
