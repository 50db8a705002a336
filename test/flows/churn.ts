/** People who come, hear a topic and go again, in each of the ways that there are: raw sockets, so that only the server's memory tells. */
import { handshake, masked } from '../bench/wire.ts'

export interface ChurnOptions {
  readonly port: number
  readonly topic: string
  /** Connects, each with its end. */
  readonly cycles: number
  /** Who are there together. */
  readonly atOnce: number
}

/** A close frame of code 1000, with a mask of zeros. */
const goodbye = Uint8Array.of(0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8)

const ways: readonly ((socket: Bun.Socket) => void)[] = [
  (socket) => void socket.write(goodbye),
  (socket) => void socket.end(),
  (socket) => socket.terminate(),
  // The server ends it, with 3501.
  (socket) => void socket.write(masked('not the protocol')),
]

/** Resolves when the last one is gone, as far as its socket tells. */
export async function churn({ port, topic, cycles, atOnce }: ChurnOptions): Promise<void> {
  const greeting = masked(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${topic}"}}`)
  let started = 0
  const visit = async (n: number): Promise<void> => {
    const gone = Promise.withResolvers<void>()
    let heard = ''
    await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        open: (socket) => void socket.write(handshake(port)),
        data(socket, chunk) {
          const isFirst = heard === ''
          heard += chunk.toString('latin1')
          if (isFirst) socket.write(greeting)
          else if (heard.includes('"subscribe":')) ways[n % ways.length]?.(socket)
        },
        end: (socket) => void socket.end(),
        close: () => gone.resolve(),
        error() {},
      },
    })
    await gone.promise
  }
  const visitor = async (): Promise<void> => {
    while (started < cycles) await visit((started += 1))
  }
  await Promise.all(Array.from({ length: atOnce }, visitor))
}
