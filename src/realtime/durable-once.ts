/**
 * Changes of the log that every node tells by itself, on topics that the database keeps: the first one's commit takes
 * the change's number as a key, and the others find it taken. What waits may be told by a commit that comes between:
 * then that key is refused with everything else of this one, and it is asked again.
 */
import { tellingKey, type Publications, type Telling } from '../store/store.ts'

/** Nodes that share a database are not apart for longer. What was told before is forgotten, once in so long. */
const toldMs = 10 * 60_000

export interface Teller {
  /** Undefined: it tells none. */
  readonly change: Telling | undefined
}

/** Those that are still to be told, and those that another one has told. */
export async function split<One extends Teller>(
  store: Publications,
  topic: string,
  waiting: readonly One[],
): Promise<{ readonly fresh: readonly One[]; readonly told: readonly One[] }> {
  const changes = changesOf(waiting)
  if (!store.isShared || changes.length === 0) return { fresh: waiting, told: [] }
  const known = await store.told(topic, changes)
  const told: One[] = []
  const fresh = waiting.filter((one) => {
    if (!one.change) return true
    const key = tellingKey(one.change)
    if (known.has(key)) told.push(one)
    const isNew = !known.has(key)
    known.add(key)
    return isNew
  })
  return { fresh, told }
}

/** Keys that a commit takes for a topic, and how old ones go. */
export class Claims {
  #since: { readonly seq: number; readonly at: number } | undefined

  /** `now`: `clock.tick()`. */
  of(
    waiting: readonly Teller[],
    now: number,
  ): { readonly changes: readonly Telling[]; readonly forgetChanges?: number } {
    const changes = changesOf(waiting)
    const [first] = changes
    if (!first) return { changes }
    const since = this.#since
    if (since && now - since.at < toldMs) return { changes }
    this.#since = { seq: first.seq, at: now }
    return since ? { changes, forgetChanges: since.seq } : { changes }
  }
}

function changesOf(waiting: readonly Teller[]): Telling[] {
  return waiting.flatMap(({ change }) => (change === undefined ? [] : [change]))
}
