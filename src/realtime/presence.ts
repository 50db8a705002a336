/**
 * Who hears a topic, for topics that declare `presence`. A member is a connection, not a user: somebody
 * with two tabs is there twice, and gone when both are.
 */

export interface Member {
  readonly client: string
  /** Empty for visitors. */
  readonly user: string
  /** JSON text: `{"client":…,"user":…,"conn_info":…}`. */
  readonly info: string
}

export interface PresenceStats {
  readonly clients: number
  /** Visitors count as one user together, as in Centrifugo. */
  readonly users: number
}

/** Where presence is kept: this process, or what several nodes share. */
export interface Presence {
  add(topic: string, member: Member): void
  remove(topic: string, client: string): void
  list(topic: string): readonly Member[] | Promise<readonly Member[]>
  stats(topic: string): PresenceStats | Promise<PresenceStats>
  /** Who comes and goes at other nodes. */
  hear(tell: (topic: string, event: 'join' | 'leave', info: string) => void): void
  start(): void
  stop(): void
}

interface Room {
  readonly members: Map<string, Member>
  /** Connections by user. */
  readonly users: Map<string, number>
}

export function createPresence(): Presence {
  const rooms = new Map<string, Room>()

  const leave = (room: Room, { client, user }: Member): void => {
    room.members.delete(client)
    const left = (room.users.get(user) ?? 1) - 1
    if (left > 0) room.users.set(user, left)
    else room.users.delete(user)
  }

  return {
    add(topic, member) {
      let room = rooms.get(topic)
      if (!room) {
        room = { members: new Map(), users: new Map() }
        rooms.set(topic, room)
      }
      const before = room.members.get(member.client)
      if (before) leave(room, before)
      room.members.set(member.client, member)
      room.users.set(member.user, (room.users.get(member.user) ?? 0) + 1)
    },
    remove(topic, client) {
      const room = rooms.get(topic)
      const member = room?.members.get(client)
      if (!room || !member) return
      leave(room, member)
      if (room.members.size === 0) rooms.delete(topic)
    },
    list: (topic) => [...(rooms.get(topic)?.members.values() ?? [])],
    stats(topic) {
      const room = rooms.get(topic)
      return { clients: room?.members.size ?? 0, users: room?.users.size ?? 0 }
    },
    hear: () => {},
    start: () => {},
    stop: () => {},
  }
}
