/**
 * One room: its list for what was said, its topic for what is said. The list is read when the topic listens, and
 * again when something was missed for good; both are put together by id.
 */
import type radio from '../apps/radio.ts'
import type { Client, Row } from '../client/client.ts'

export type Radio = typeof radio
export type Shout = Row<Radio, 'shouts'>

/** What the page keeps of a room. */
const shoutsMax = 100

export interface Room {
  /** Problems: too often, too long, not signed in. */
  say(text: string): Promise<void>
  close(): void
}

export interface RoomDeps {
  readonly client: Client<Radio>
  /** All there is to show, oldest first. */
  readonly show: (shouts: readonly Shout[]) => void
  readonly fail: (why: unknown) => void
}

export function enterRoom({ client, show, fail }: RoomDeps, name: string): Room {
  const shouts = new Map<number, Shout>()
  const removed = new Set<number>()
  let isOpen = true
  /** The list, since the room was entered or something was missed. */
  let isAsked = false

  const draw = (): void => {
    const all = [...shouts.values()].toSorted((a, b) => a.id - b.id)
    for (const { id } of all.splice(0, Math.max(0, all.length - shoutsMax))) shouts.delete(id)
    if (isOpen) show(all)
  }

  const load = async (): Promise<void> => {
    const query = { room: name, order: 'newest', limit: shoutsMax } as const
    const { items } = await client.collection('shouts').list(query)
    for (const shout of items) if (!removed.has(shout.id)) shouts.set(shout.id, shout)
    draw()
  }
  const reload = (): void => {
    isAsked = true
    load().catch((why: unknown) => {
      isAsked = false
      fail(why)
    })
  }

  const subscription = client.subscribe(`chat:${name}`, {
    message({ op, row }) {
      if (op === 'remove') {
        removed.add(row.id)
        shouts.delete(row.id)
      } else shouts.set(row.id, row)
      draw()
    },
    gap() {
      // Some of what is held may be gone.
      shouts.clear()
      reload()
    },
    subscribed() {
      if (!isAsked) reload()
    },
  })

  return {
    say: (text) => subscription.publish({ text }),
    close() {
      isOpen = false
      subscription.close()
    },
  }
}
