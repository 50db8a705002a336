/**
 * Last values, as text: encoded once, compared as text, and copied by whoever reads them.
 *
 *   as it is ──upstream fails──► the same with `stale: true` and `as_of` ──upstream answers──► as it is
 */
import type { FeedValue } from './declare.ts'

export interface Value {
  /** JSON. */
  readonly text: string
  /** When upstream said so, or said it again. Ms since 1970. */
  asOfMs: number
  isStale: boolean
}

/** In characters. What is longer does not fit a message between nodes, and is no value but a document. */
export const valueLengthMax = 48 * 1024

/**
 * A publication that Redis had no time for reaches the subscribers of this node only. Said again after so long it reaches
 * them all: Redis lets nothing through that it was told last.
 */
export const retellMs = 30_000

/** Neither upstream nor the node that asks was heard for so long: values are stale. */
const silentMsMin = 30_000
const silentIntervals = 3

export function silentMsOf(intervalMs: number): number {
  return Math.max(silentMsMin, silentIntervals * intervalMs)
}

/** Undefined: nothing, or nothing that JSON can say. */
export function textOf(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined
  return JSON.stringify(value) as string | undefined
}

/** What is published and answered. */
export function toldOf({ text, asOfMs, isStale }: Value): unknown {
  const data: unknown = JSON.parse(text)
  if (!isStale) return data
  const isObject = typeof data === 'object' && data !== null && !Array.isArray(data)
  return { ...(isObject ? data : { value: data }), stale: true, as_of: asOfMs }
}

/** `told` of a feed: what was published last, as a text. */
export function toldTextOf({ text, isStale }: Value): string {
  return isStale ? `stale ${text}` : text
}

export function feedValueOf({ text, asOfMs, isStale }: Value): FeedValue {
  return { value: JSON.parse(text), asOfMs, isStale }
}

/** Stands for a text where only that it is the same is told. The same on every node, of whatever version. */
export function sumOf(text: string): string {
  return Bun.hash.crc32(text).toString(36)
}
