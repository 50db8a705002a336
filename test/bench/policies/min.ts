/** Bélády's MIN: knows the future, and keeps what is asked for soonest. Nobody can do better at equal size. */

/** Hit rate, cold start, every request counts. A newcomer may be the one who leaves. */
export function hitRateOfMin(trace: readonly string[], entriesMax: number): number {
  const next = nextUses(trace)
  const dueAt = new Map<string, number>()
  const heap = createHeap()
  let hits = 0
  for (const [at, key] of trace.entries()) {
    if (dueAt.has(key)) hits++
    const due = next[at] as number
    dueAt.set(key, due)
    heap.push(due, key)
    while (dueAt.size > entriesMax) {
      const [latest, gone] = heap.pop()
      // Others are from before the key was asked for again.
      if (dueAt.get(gone) === latest) dueAt.delete(gone)
    }
  }
  return hits / trace.length
}

/** For each request, when its key is asked for again; never again: later than all, and no two alike. */
function nextUses(trace: readonly string[]): Float64Array {
  const next = new Float64Array(trace.length)
  const seen = new Map<string, number>()
  for (let at = trace.length - 1; at >= 0; at--) {
    const key = trace[at] as string
    next[at] = seen.get(key) ?? trace.length + at
    seen.set(key, at)
  }
  return next
}

/** Latest first. */
function createHeap() {
  const items: [due: number, key: string][] = []
  const dueOf = (at: number): number => items[at]?.[0] ?? -1
  const swap = (a: number, b: number): void => {
    ;[items[a], items[b]] = [items[b] as [number, string], items[a] as [number, string]]
  }
  return {
    push(due: number, key: string): void {
      let at = items.push([due, key]) - 1
      for (let up = (at - 1) >> 1; at > 0 && dueOf(up) < dueOf(at); up = (at - 1) >> 1) {
        swap(at, up)
        at = up
      }
    },
    pop(): [due: number, key: string] {
      const top = items[0] as [number, string]
      const last = items.pop() as [number, string]
      if (items.length === 0) return top
      items[0] = last
      for (let at = 0; ;) {
        const child = dueOf(2 * at + 2) > dueOf(2 * at + 1) ? 2 * at + 2 : 2 * at + 1
        if (dueOf(child) <= dueOf(at)) return top
        swap(at, child)
        at = child
      }
    },
  }
}
