/**
 * Cursors: a place in an order, as opaque text that only this app can have made.
 *
 *   base64url( first 16 bytes of HMAC-SHA-256(key, what it is of · payload) · payload )
 *
 * The payload holds the values themselves, not a row's id: the place stays where it is when its row
 * is changed or deleted. What it is of (collection, order, the order's columns) is signed and not
 * sent: a cursor of another list, of another order, or of an order that has changed is refused.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { Fault } from '../fault.ts'
import { must } from '../lib/assert.ts'
import type { CollectionPlan } from './collections.ts'
import type { Order } from './declare.ts'

/** Of 32: nobody guesses 128 bits, and a URL is short. */
const macBytes = 16

/**
 * Characters: three quarters of the longest URL (8 KB), so that a host, a path and filters fit beside
 * it. The plan's limit on an order's text (`orderTextMax`) and that of ids keep every cursor below it.
 */
export const cursorLengthMax = 6144

/**
 * Characters that the text columns of one order may hold together, the key's left out: 3 bytes of
 * UTF-8 each, and with the longest id and 20 numbers that is `cursorLengthMax`.
 */
export const orderTextMax = 1000

export type CursorValue = string | number

export interface Position {
  /** Driver values of the order's columns. */
  readonly values: readonly CursorValue[]
  /** Whether the page begins with a row at this very place, or beyond it. */
  readonly isInclusive: boolean
}

export interface Cursors {
  encode(plan: CollectionPlan, order: string, position: Position): string
  /** Undefined for whatever was not made by `encode` for this list and order. */
  decode(plan: CollectionPlan, order: string, text: string): Position | undefined
}

/** `key` is asked each time: it is read from the store, which opens after this is made. */
export function createCursors(key: () => Uint8Array): Cursors {
  const macOf = (plan: CollectionPlan, order: string, payload: string): Buffer =>
    createHmac('sha256', key())
      .update(`${subjectOf(plan, order)}\0${payload}`)
      .digest()
      .subarray(0, macBytes)

  return {
    encode(plan, order, { values, isInclusive }) {
      const payload = (isInclusive ? '=' : '>') + values.map(partOf).join('\0')
      const bytes = Buffer.concat([macOf(plan, order, payload), Buffer.from(payload)])
      const text = bytes.toString('base64url')
      if (text.length <= cursorLengthMax) return text
      const cause = new Fault('internal', `a row of ${plan.path} is too long for a cursor`)
      throw new Fault('internal', 'internal error', { cause })
    },
    decode(plan, order, text) {
      if (text.length > cursorLengthMax) return undefined
      const bytes = Buffer.from(text, 'base64url')
      // The last character has bits that nobody reads: only the one spelling we give is taken.
      if (bytes.length <= macBytes || bytes.toString('base64url') !== text) return undefined
      const payload = bytes.subarray(macBytes).toString()
      const mac = macOf(plan, order, payload)
      if (!timingSafeEqual(bytes.subarray(0, macBytes), mac)) return undefined
      const values = payload.slice(1).split('\0').map(valueOf)
      return { values, isInclusive: payload.startsWith('=') }
    },
  }
}

function subjectOf(plan: CollectionPlan, order: string): string {
  const columns = orderOf(plan, order).map(({ column, descending }) => [
    column.name,
    column.getSQLType(),
    descending,
  ])
  return JSON.stringify([plan.path, order, columns])
}

export function orderOf(plan: CollectionPlan, name: string): readonly Order[] {
  return must(plan.orders.get(name), () => `order ${name} is declared`)
}

/** No stored text holds U+0000, and `Number` reads back what `String` wrote, infinities too. */
function partOf(value: CursorValue): string {
  return (typeof value === 'string' ? 's' : 'n') + String(value)
}

function valueOf(part: string): CursorValue {
  return part.startsWith('s') ? part.slice(1) : Number(part.slice(1))
}
