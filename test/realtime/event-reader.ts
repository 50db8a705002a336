/** Reads a stream of server-sent events by hand, the way an EventSource does. */
import { until, type TestServer } from './serve.ts'

export interface Event {
  readonly type: string
  readonly id: string
  readonly data: unknown
}

export interface Message {
  readonly channel: string
  readonly data: unknown
  readonly offset: number
}

/** Keeps Last-Event-ID as the standard says: an `id` counts even where no event is dispatched. */
export class Reader implements AsyncDisposable {
  readonly events: Event[] = []
  readonly chunks: string[] = []
  readonly comments: string[] = []
  lastEventId = ''
  retryMs = 0
  isDone = false
  #rest = ''
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>

  constructor(body: ReadableStream<Uint8Array>) {
    this.#reader = body.getReader() as ReadableStreamDefaultReader<Uint8Array>
    void this.#read()
  }

  static async open(
    server: Pick<TestServer, 'url'>,
    names: string,
    lastEventId?: string,
  ): Promise<Reader> {
    const headers: Record<string, string> = lastEventId ? { 'last-event-id': lastEventId } : {}
    const response = await fetch(`${server.url}/api/stream?topics=${names}`, { headers })
    if (!response.body) throw new Error('no body')
    const reader = new Reader(response.body as ReadableStream<Uint8Array>)
    await until(() => reader.lastEventId !== '', 'the opening')
    return reader
  }

  get messages(): Message[] {
    return this.events.flatMap(({ type, data }) => (type === 'message' ? [data as Message] : []))
  }

  async close(): Promise<void> {
    await this.#reader.cancel()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder()
    try {
      for (;;) {
        const { done, value } = await this.#reader.read()
        if (done) break
        const text = decoder.decode(value, { stream: true })
        this.chunks.push(text)
        this.#hear(text)
      }
    } catch {
      // Cut.
    }
    this.isDone = true
  }

  #hear(text: string): void {
    const blocks = (this.#rest + text).split('\n\n')
    this.#rest = blocks.pop() ?? ''
    for (const block of blocks) {
      let type = 'message'
      let data: string | undefined
      for (const line of block.split('\n')) {
        if (line.startsWith(':')) this.comments.push(line)
        else if (line.startsWith('id: ')) this.lastEventId = line.slice(4)
        else if (line.startsWith('event: ')) type = line.slice(7)
        else if (line.startsWith('data: ')) data = line.slice(6)
        else if (line.startsWith('retry: ')) this.retryMs = Number(line.slice(7))
      }
      if (data !== undefined)
        this.events.push({ type, id: this.lastEventId, data: JSON.parse(data) })
    }
  }
}
