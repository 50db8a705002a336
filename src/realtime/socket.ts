/** As much of Bun's `ServerWebSocket` as a connection uses; what stands for one has the same. */
export interface Socket {
  /** Above 0: the kernel took it. −1: it waits in the socket's buffer. 0: it is closed. */
  send(text: string): number
  close(code: number, reason: string): void
  getBufferedAmount(): number
  readonly remoteAddress: string
  /** Of an emulated transport: names the connection in `POST /emulation`. */
  readonly session?: string
}
