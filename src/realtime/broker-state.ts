/** What Redis says of a topic, on the channel and when it is asked, as this node understands it. */
import type { Kept } from './hub.ts'
import type { Position } from './recovery.ts'

export interface Message {
  readonly epoch: string
  readonly offset: number
  readonly mark: string
  readonly data: string
  /** Of the change it tells, in this node's own log; 0: of none. */
  readonly seq: number
}

export interface State extends Position {
  readonly mark: string
  /** `entries` go on where the asker was. Otherwise they are the newest. */
  readonly isSame: boolean
  readonly entries: readonly (Message & { readonly atMs: number })[]
}

/** `source`: of this node's own log. */
export function messageOf(
  text: string,
  source: string,
): { readonly name: string; readonly message: Message } {
  const line = text.indexOf('\n')
  const [epoch = '', offset, mark = '', name = '', change] = text.slice(0, line).split(' ')
  const seq = seqOf(change, source)
  return { name, message: { epoch, offset: Number(offset), mark, data: text.slice(line + 1), seq } }
}

/** What the topic kept is gone. */
export function isForgetting({ mark }: Message): boolean {
  return mark === '-'
}

/** A number that was given twice: Redis has gone back, to before it. `mark`: of the one that was heard here. */
export function isTwice(at: Position, mark: string, message: Message): boolean {
  const isHere = message.epoch === at.epoch && message.offset === at.offset && at.offset > 0
  return isHere && message.mark !== mark && !isForgetting(message)
}

/** Whether messages lead from an offset to where Redis is. */
export function hasCome(
  from: number,
  { epoch, offset }: State,
  messages: readonly Message[] = [],
): boolean {
  const offsets = new Set(messages.map((one) => (one.epoch === epoch ? one.offset : 0)))
  for (let next = from + 1; next <= offset; next += 1) if (!offsets.has(next)) return false
  return true
}

export function keptOf({ epoch, offset, entries }: State): Kept {
  return { epoch, offset, publications: entries }
}

type Entry = [id: string, fields: [...unknown[]]]

/** Changes of another database are none of ours to wait for. */
function seqOf(change: string | undefined, source: string): number {
  if (change === undefined || change === '') return 0
  const [by, seq] = change.split(':')
  return by === source ? Number(seq) : 0
}

/** `nowMs`: times of Redis become times of here. */
export function stateOf(answer: unknown, nowMs: number, source: string): State {
  const [epoch, offset, mark, time, same, found] = answer as [
    ...[string, number, string, string, number],
    Entry[],
  ]
  const isSame = same === 1
  const entries = found.map(([id, fields]) => ({
    epoch,
    offset: Number(id.slice(0, -2)),
    atMs: nowMs - (Number(time) - Number(fields[1])),
    mark: String(fields[3]),
    data: String(fields[7]),
    seq: seqOf(String(fields[9]), source),
  }))
  return { epoch, offset, mark, isSame, entries: isSame ? entries : entries.reverse() }
}
