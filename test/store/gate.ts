/** A server in front of a sqld: `answer` may keep a request, or answer it. */
export function startGate(url: string, answer: (body: string) => Promise<Response | undefined>) {
  const server = Bun.serve({
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const body = await request.text()
      const answered = await answer(body)
      if (answered) return answered
      const { method, headers } = request
      const passed = await fetch(`${url}${new URL(request.url).pathname}`, {
        ...{ method, headers },
        ...(method === 'GET' ? {} : { body }),
      })
      // As it is now: no longer compressed.
      const type = passed.headers.get('content-type') ?? ''
      const { status } = passed
      return new Response(await passed.arrayBuffer(), { status, headers: { 'content-type': type } })
    },
  })
  return {
    url: `http://127.0.0.1:${server.port}`,
    [Symbol.asyncDispose]: () => server.stop(true),
  }
}
