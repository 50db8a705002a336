/**
 * All nodes of an app, for what one of them is told to do or is asked, and all have to do or answer:
 *
 *   ask ─► the others run it, each answers ─► the answers of those that did so in time
 *
 * Never fails: who is not there is not waited for longer than a bound, and the caller is told so.
 */
export interface Nodes {
  /** `action`: a node that does not listen at the moment does it later. `question`: it is only asked. */
  ask(text: string, kind: 'action' | 'question'): Promise<Answers>
  /** What this node does when another asks. Must not fail. */
  onAsked(run: (text: string) => Promise<string>): void
  start(): void
  stop(): void
}

/** Of the other nodes. */
export interface Answers {
  readonly texts: readonly string[]
  /** A node that should be there has not answered, or nobody could be asked. */
  readonly isPartial: boolean
}

/** Of the only node there is. */
export function createOnlyNode(): Nodes {
  const none = Promise.resolve({ texts: [], isPartial: false })
  return { ask: () => none, onAsked() {}, start() {}, stop() {} }
}
