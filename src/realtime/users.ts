/** Who is connected, by user: what the server does to a user reaches each of the user's connections, or streams. */

export class Users<One extends object> {
  /** Most users have one connection: a set only from the second on. */
  readonly #connections = new Map<string, One | Set<One>>()

  add(user: string, connection: One): void {
    const known = this.#connections.get(user)
    if (known instanceof Set) known.add(connection)
    else if (known === undefined) this.#connections.set(user, connection)
    else if (known !== connection) this.#connections.set(user, new Set([known, connection]))
  }

  remove(user: string, connection: One): void {
    const known = this.#connections.get(user)
    if (known instanceof Set) {
      known.delete(connection)
      if (known.size > 0) return
    } else if (known !== connection) return
    this.#connections.delete(user)
  }

  /** A copy: what is done to them may make them leave. */
  of(user: string): One[] {
    const known = this.#connections.get(user)
    if (known === undefined) return []
    return known instanceof Set ? [...known] : [known]
  }

  names(): Iterable<string> {
    return this.#connections.keys()
  }

  get size(): number {
    return this.#connections.size
  }
}
