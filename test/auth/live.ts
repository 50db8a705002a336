/** Who stays connected, and is watched being sent away. */
import { expect } from 'bun:test'
import { until } from '../harness.ts'
import type { TestServer } from '../server.ts'

interface Headed {
  readonly headers: Record<string, string>
}

/** With these headers in its upgrade. */
export function openSocket(server: Pick<TestServer, 'url'>, { headers }: Headed) {
  const url = `${server.url.replace('http', 'ws')}/connection/websocket`
  // Bun's own takes headers; the DOM's type of it does not know.
  const socket = new WebSocket(url, { headers } as unknown as string[])
  const opened = new Promise<void>((resolve) => socket.addEventListener('open', () => resolve()))
  const closed = new Promise<number>((resolve) =>
    socket.addEventListener('close', ({ code }) => resolve(code)),
  )
  const messages: string[] = []
  socket.addEventListener('message', ({ data }) => void messages.push(String(data)))
  return {
    opened,
    closed,
    messages,
    async connect() {
      await opened
      socket.send('{"id":1,"connect":{}}')
      await until(() => messages.length > 0, 'the reply to connect')
    },
    send: (text: string) => socket.send(text),
    [Symbol.dispose]: () => socket.close(),
  }
}

/** A stream, read to its end. */
export async function openStream(
  server: Pick<TestServer, 'get'>,
  path: string,
  init: RequestInit & Headed,
) {
  const response = await server.get(path, init)
  expect(response.status).toBe(200)
  const stream = { text: '', isOver: false, ended: Promise.resolve() }
  stream.ended = (async () => {
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) stream.text += decoder.decode(chunk)
    stream.isOver = true
  })()
  await until(() => stream.text !== '', 'the opening')
  return stream
}
