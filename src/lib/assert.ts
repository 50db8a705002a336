/** Bugs are asserted: these fire on our own mistakes, never on input. */

export function assert(condition: unknown, message: () => string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message()}`)
}

export function must<T>(value: T | null | undefined, message: () => string): T {
  assert(value !== null && value !== undefined, message)
  return value
}

export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
