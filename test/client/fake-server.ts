/** As much of the protocol as makes a client connect and subscribe, and says what no honest server says. */
export interface FakeServer extends Disposable {
  readonly url: string
  /** Commands, in order, of all connections. */
  readonly commands: readonly Readonly<Record<string, unknown>>[]
  /** Sockets that were opened so far. */
  readonly opened: number
  push(frame: unknown): void
  close(code: number, reason: string): void
}

export function fakeServer(
  replyTo: (method: string, params: unknown, connection: number) => unknown,
): FakeServer {
  const commands: Record<string, unknown>[] = []
  const sockets = new Set<Bun.ServerWebSocket<number>>()
  let opened = 0
  const server = Bun.serve<number>({
    port: 0,
    fetch: (request, bun) =>
      bun.upgrade(request, { data: opened }) ? undefined : new Response(null, { status: 400 }),
    websocket: {
      open(socket) {
        opened += 1
        sockets.add(socket)
      },
      close: (socket) => void sockets.delete(socket),
      message(socket, text) {
        for (const line of String(text).split('\n')) {
          const { id, ...command } = JSON.parse(line) as Record<string, unknown>
          const [method = ''] = Object.keys(command)
          commands.push(command)
          const reply = replyTo(method, command[method], socket.data)
          if (id !== undefined) socket.send(JSON.stringify({ id, [method]: reply }))
        }
      },
    },
  })
  return {
    url: `http://localhost:${server.port}`,
    commands,
    get opened() {
      return opened
    },
    push(frame) {
      for (const socket of sockets) socket.send(JSON.stringify(frame))
    },
    close(code, reason) {
      for (const socket of sockets) socket.close(code, reason)
    },
    [Symbol.dispose]: () => void server.stop(true),
  }
}
