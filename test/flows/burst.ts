/** Many HTTP requests under way at once, each on a connection of its own; the answers are counted by status. */

export interface Burst extends Disposable {
  /**
   * Sends one request on each connection, as fast as the server takes them in. Resolves when all are
   * answered, with how many there are of each status.
   */
  send(request: (at: number) => string): Promise<Map<number, number>>
}

interface State {
  answered: ((status: number) => void) | undefined
}

/**
 * Opens so many before the server is asked whether it has taken them in: a listener's backlog is short, and who
 * finds it full believes to be connected until it says something.
 */
const openAtOnce = 100

/**
 * Requests sent before the server is asked whether it has read them. While 1,024 sockets or more have
 * something to say, Bun 1.4.5 reads on and on, and no timer comes: 10,000 at once to a raw
 * `Bun.serve` whose handler takes 0.25 ms keep its loop from turning for 2.4 s.
 */
const wave = 50

export async function openBurst(port: number, connections: number): Promise<Burst> {
  const sockets: Bun.Socket<State>[] = []
  const failed = Promise.withResolvers<never>()
  // Heard by whoever sends; nobody sends, nobody minds.
  failed.promise.catch(() => undefined)
  /** Who answers this has taken in who came before it, and read what was sent. */
  const ask = async (): Promise<void> => {
    await (await fetch(`http://127.0.0.1:${port}/api/health`, { keepalive: false })).text()
  }
  const open = async (): Promise<void> => {
    const socket = await Bun.connect<State>({
      hostname: '127.0.0.1',
      port,
      socket: {
        open: (opened) => void (opened.data = { answered: undefined }),
        data(from, chunk) {
          // The head comes in one piece, and nothing else is asked before the next burst.
          const status = /^HTTP\/1\.1 (\d{3})/.exec(chunk.toString('latin1', 0, 16))?.[1]
          const { answered } = from.data
          from.data.answered = undefined
          if (status !== undefined) answered?.(Number(status))
        },
        close: () => failed.reject(new Error('the server closed a connection')),
        error: (_, error) => failed.reject(error),
      },
    })
    sockets.push(socket)
  }
  while (sockets.length < connections) {
    const count = Math.min(openAtOnce, connections - sockets.length)
    await Promise.all(Array.from({ length: count }, open))
    await ask()
  }
  return {
    async send(request) {
      const statuses = new Map<number, number>()
      const done = Promise.withResolvers<void>()
      let left = sockets.length
      const answered = (status: number): void => {
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        if (--left === 0) done.resolve()
      }
      for (let at = 0; at < sockets.length; at += wave) {
        for (const [more, socket] of sockets.slice(at, at + wave).entries()) {
          socket.data.answered = answered
          socket.write(request(at + more))
        }
        await ask()
      }
      await Promise.race([done.promise, failed.promise])
      return statuses
    },
    [Symbol.dispose]() {
      for (const socket of sockets) socket.terminate()
    },
  }
}
