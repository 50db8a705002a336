/** `nats-server` with its WebSocket door, as a peer of benches. */
import { writeFileSync } from 'node:fs'
import { tempFolder, until } from '../harness.ts'
import { freePort } from '../services.ts'
import { pinned } from './load.ts'
import type { Peer } from './peer.ts'
import { sample, topicName } from './wire.ts'

export const hasNats = Bun.which('nats-server') !== null

/** A peer that is no script: what only it knows about itself. */
export interface ForeignPeer extends Pick<Peer, 'port' | 'publish' | 'subscribers' | 'stop'> {
  readonly pid: number
}

const configOf = (port: number, clients: number, monitor: number): string => `
host: 127.0.0.1
port: ${clients}
http: "127.0.0.1:${monitor}"
max_connections: 19000
websocket { host: "127.0.0.1", port: ${port}, no_tls: true }
`

export async function startNats(): Promise<ForeignPeer> {
  const folder = tempFolder()
  const [port, clients, monitor] = [await freePort(), await freePort(), await freePort()]
  writeFileSync(folder.file('nats.conf'), configOf(port, clients, monitor))
  const child = Bun.spawn([...pinned, 'nats-server', '-c', folder.file('nats.conf')], {
    stdout: 'ignore',
    stderr: 'ignore',
  })
  const connections = async (): Promise<number> =>
    await fetch(`http://127.0.0.1:${monitor}/varz`).then(
      async (response) => ((await response.json()) as { connections: number }).connections,
      () => -1,
    )
  await until(async () => (await connections()) >= 0, 'nats-server answers')
  const publisher = await Bun.connect({
    hostname: '127.0.0.1',
    port: clients,
    socket: {
      data(socket, chunk) {
        if (chunk.includes('PING\r\n')) socket.write('PONG\r\n')
      },
      error() {},
    },
  })
  publisher.write('CONNECT {"verbose":false}\r\n')
  const data = JSON.stringify(sample)
  const publication = `PUB ${topicName} ${data.length}\r\n${data}\r\n`
  return {
    pid: child.pid,
    port,
    publish: async (count) => void publisher.write(publication.repeat(count)),
    // Besides the publisher; that each has subscribed is in the answer it has waited for.
    subscribers: async () => (await connections()) - 1,
    stop() {
      child.kill()
      void child.exited.then(() => folder[Symbol.dispose]())
    },
  }
}
