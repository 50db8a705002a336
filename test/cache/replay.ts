import type { CreatePolicy } from '../../src/cache/policy.ts'

/** Hit rate in a cold cache of so many entries; every request counts, a miss is loaded and set. */
export function hitRate(
  create: CreatePolicy,
  entriesMax: number,
  trace: readonly string[],
): number {
  const policy = create<true>({ entriesMax, bytesMax: entriesMax, entryBytesMax: 1 })
  let hits = 0
  for (const key of trace) {
    if (policy.get(key)) hits++
    else policy.set(key, true, 1)
  }
  return hits / trace.length
}
