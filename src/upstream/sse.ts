/** `text/event-stream` as it comes, in pieces: the parser of the HTML standard, with a bound. */

export interface ServerSentEvent {
  readonly data: string
  readonly event: string
  /** The last that was told, by this event or one before. */
  readonly id: string
}

export interface SseParser {
  /** Undefined: an event, or a line, is longer than allowed; nothing more can be made of it. */
  push(bytes: Uint8Array): readonly ServerSentEvent[] | undefined
  /** How long to wait before the next connection, if it was told. */
  readonly retryMs: number | undefined
  readonly lastId: string
}

/** `charsMax`: of an event's data, and of a line. */
export function createSseParser(charsMax: number, lastId: string): SseParser {
  const decoder = new TextDecoder()
  /** The line that is not at its end yet. */
  let rest = ''
  let isAfterReturn = false
  let data: string[] = []
  let length = 0
  let event = ''
  /** Of the event that is not at its end yet: cut off before, it has not been told, and is asked for again. */
  let nextId = lastId
  let id = lastId
  let retryMs: number | undefined

  const endOf = (): ServerSentEvent | undefined => {
    id = nextId
    const whole = data.length === 0 ? undefined : { data: data.join('\n'), event, id }
    data = []
    length = 0
    event = ''
    return whole && { ...whole, event: whole.event || 'message' }
  }

  const take = (line: string): ServerSentEvent | undefined => {
    if (line === '') return endOf()
    const colon = line.indexOf(':')
    const name = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (name === 'data') {
      data.push(value)
      length += value.length + 1
    } else if (name === 'event') event = value
    else if (name === 'id' && !value.includes('\0')) nextId = value
    else if (name === 'retry' && /^\d{1,9}$/.test(value)) retryMs = Number(value)
    return undefined
  }

  return {
    get retryMs() {
      return retryMs
    },
    get lastId() {
      return id
    },
    push(bytes) {
      let text = decoder.decode(bytes, { stream: true })
      // The second half of a line's end that came in two pieces.
      if (isAfterReturn && text.startsWith('\n')) text = text.slice(1)
      if (text !== '') isAfterReturn = text.endsWith('\r')
      const lines = (rest + text).split(/\r\n|\n|\r/)
      rest = lines.pop() ?? ''
      const events: ServerSentEvent[] = []
      for (const line of lines) {
        const whole = take(line)
        if (whole) events.push(whole)
        if (length > charsMax) return undefined
      }
      return rest.length > charsMax ? undefined : events
    },
  }
}
