/** As much of the browser's `EventSource` as the stock client uses: Bun has none. */
export class TestEventSource {
  onopen: (() => void) | null = null
  onerror: ((event: unknown) => void) | null = null
  onmessage: ((event: { data: string }) => void) | null = null
  readonly #abort = new AbortController()

  constructor(url: string) {
    void this.#read(url)
  }

  close(): void {
    this.#abort.abort()
  }

  async #read(url: string): Promise<void> {
    const { signal } = this.#abort
    try {
      const response = await fetch(url, { headers: { accept: 'text/event-stream' }, signal })
      if (!response.ok) throw new Error(String(response.status))
      this.onopen?.()
      let text = ''
      const decoder = new TextDecoder()
      for await (const chunk of response.body ?? []) {
        text += decoder.decode(chunk, { stream: true })
        const events = text.split('\n\n')
        text = events.pop() ?? ''
        for (const event of events) this.#dispatch(event)
      }
      throw new Error('the stream ended')
    } catch (error) {
      if (!signal.aborted) this.onerror?.(error)
    }
  }

  #dispatch(event: string): void {
    const lines = event.split('\n').filter((line) => line.startsWith('data: '))
    if (lines.length === 0 || this.#abort.signal.aborted) return
    this.onmessage?.({ data: lines.map((line) => line.slice('data: '.length)).join('\n') })
  }
}
