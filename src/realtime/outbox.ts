/**
 * What was published and has not left yet, and those it must go to. One per topic (its sockets hear
 * frames) and one per group of streams (they hear events).
 *
 *   append ─► frames: 41 42 43 44 ─► step: one chunk, one shard ─► push to each member
 *                     ▲        ▲
 *          shard 1 next        end      shard 2 is at the end already; who joined it late waits for 44
 *
 * Members are spread over shards, so that a hundred thousand of them are served in slices. Invariant:
 * a member is pushed every frame that was appended after it joined, in order, once, however many turns
 * of the event loop that takes. What was appended before, its own answer has told it.
 */
import { assert, must } from '../lib/assert.ts'
import { chunkLengthMax, type Pump } from './pump.ts'

/** Hears frames; a socket, a stream, or whatever stands for one. */
export interface Sink<Chunk> {
  push(chunk: Chunk): void
}

/** Members of a shard: about 5 ms of writes, and nothing stops in the middle of it. */
export const shardSizeDefault = 500

interface Late<Chunk> {
  readonly sink: Sink<Chunk>
  /** Number of the first frame it has not been told. */
  readonly from: number
}

/** Members that are served together. Whoever joins keeps it, to leave by. */
export class Shard<Home, Chunk> {
  readonly outbox: Outbox<Home, Chunk>
  readonly index: number
  readonly members: Sink<Chunk>[] = []
  /** Joined while frames waited that they have in their answer already. */
  readonly late: Late<Chunk>[] = []
  /** Number of the first frame that `members` have not been pushed. */
  next: number

  constructor(outbox: Outbox<Home, Chunk>, index: number, next: number) {
    this.outbox = outbox
    this.index = index
    this.next = next
  }

  get home(): Home {
    return this.outbox.home
  }

  get size(): number {
    return this.members.length + this.late.length
  }
}

export interface OutboxOptions<Chunk> {
  readonly shardSize: number
  /** What several frames look like in one write. */
  readonly pack: (frames: readonly string[]) => Chunk
}

export class Outbox<Home, Chunk> {
  readonly home: Home
  /** Waits for its turn in the pump, which alone sets it. */
  isQueued = false
  readonly #pump: Pump
  readonly #options: OutboxOptions<Chunk>
  readonly #shards: Shard<Home, Chunk>[] = []
  #frames: string[] = []
  /** Number of `#frames[0]`. */
  #first = 0
  /** Index of the shard whose turn is next. */
  #turn = 0
  /** No shard before this index has room. */
  #roomy = 0
  /** What the shard before was pushed; the next one mostly needs the same. */
  #packed: { readonly from: number; readonly to: number; readonly chunk: Chunk } | undefined

  constructor(home: Home, pump: Pump, options: OutboxOptions<Chunk>) {
    this.home = home
    this.#pump = pump
    this.#options = options
  }

  append(frame: string): void {
    this.#frames.push(frame)
    this.#pump.add(this, frame.length)
  }

  /** It hears what is appended from now on. */
  join(sink: Sink<Chunk>): Shard<Home, Chunk> {
    const shard = this.#shardWithRoom()
    if (shard.next === this.#end) shard.members.push(sink)
    else shard.late.push({ sink, from: this.#end })
    return shard
  }

  leave(shard: Shard<Home, Chunk>, sink: Sink<Chunk>): void {
    const { members, late, index } = shard
    const place = members.lastIndexOf(sink)
    if (place === -1) {
      const at = late.findIndex((one) => one.sink === sink)
      assert(at !== -1, () => 'who leaves a shard has joined it')
      removeAt(late, at)
    } else removeAt(members, place)
    this.#roomy = Math.min(this.#roomy, index)
    while (this.#shards.at(-1)?.size === 0) this.#shards.pop()
  }

  /** All who hear it. */
  sinks(): Sink<Chunk>[] {
    return this.#shards.flatMap(({ members, late }) => [
      ...members,
      ...late.map(({ sink }) => sink),
    ])
  }

  get isEmpty(): boolean {
    return this.#frames.length === 0
  }

  /** Pushes one chunk to one shard; tells to how many. */
  step(): number {
    let count = 0
    while (this.#turn < this.#shards.length) {
      const shard = this.#shardAt(this.#turn)
      this.#turn += 1
      if (shard.next === this.#end) continue
      if (shard.size > 0) {
        count = shard.size
        this.#deliver(shard)
        break
      }
      shard.next = this.#end
    }
    if (this.#turn >= this.#shards.length) {
      this.#turn = 0
      this.#forget()
    }
    return count
  }

  get #end(): number {
    return this.#first + this.#frames.length
  }

  #shardAt(index: number): Shard<Home, Chunk> {
    return must(this.#shards[index], () => `shard ${index}`)
  }

  #shardWithRoom(): Shard<Home, Chunk> {
    for (; this.#roomy < this.#shards.length; this.#roomy += 1) {
      const shard = this.#shardAt(this.#roomy)
      if (shard.size === 0) shard.next = this.#end
      if (shard.size < this.#options.shardSize) return shard
    }
    const shard = new Shard(this, this.#shards.length, this.#end)
    this.#shards.push(shard)
    return shard
  }

  /** Backwards: a member that leaves while it is pushed is replaced by the last one, which had its turn. */
  #deliver(shard: Shard<Home, Chunk>): void {
    const { members, late, next } = shard
    const to = this.#upTo(next)
    shard.next = to
    const chunk = this.#pack(next, to)
    for (let place = members.length - 1; place >= 0; place -= 1) members[place]?.push(chunk)
    for (let place = late.length - 1; place >= 0; place -= 1) {
      const one = late[place]
      if (!one || one.from > to) continue
      removeAt(late, place)
      members.push(one.sink)
      if (one.from < to) one.sink.push(this.#pack(one.from, to))
    }
  }

  /** As many frames as one write may have, at least one. */
  #upTo(from: number): number {
    const end = this.#end
    let length = 0
    for (let number = from; number < end; number += 1) {
      length += this.#frames[number - this.#first]?.length ?? 0
      if (length > chunkLengthMax && number > from) return number
    }
    return end
  }

  #pack(from: number, to: number): Chunk {
    const packed = this.#packed
    if (packed?.from === from && packed.to === to) return packed.chunk
    const chunk = this.#options.pack(this.#frames.slice(from - this.#first, to - this.#first))
    this.#packed = { from, to, chunk }
    return chunk
  }

  /** Frames that every shard has been pushed. */
  #forget(): void {
    let least = this.#end
    for (const shard of this.#shards) if (shard.size > 0) least = Math.min(least, shard.next)
    const count = least - this.#first
    let length = 0
    for (let place = 0; place < count; place += 1) length += this.#frames[place]?.length ?? 0
    this.#pump.forget(length)
    this.#first = least
    if (count < this.#frames.length) this.#frames.splice(0, count)
    else {
      this.#frames = []
      this.#packed = undefined
    }
  }
}

/** Order does not matter: the last one takes the place. */
function removeAt<Item>(items: Item[], place: number): void {
  const last = items.pop()
  if (last !== undefined && place < items.length) items[place] = last
}
