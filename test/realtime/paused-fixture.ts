/** Subscribers of Ann, in a process that can be stopped where it stands: `bun paused-fixture.ts <url> <topic> <count>`. */
const [, , url = '', topic = '', count = '1'] = process.argv

let ready = 0
const codes: number[] = []
for (let n = 0; n < Number(count); n += 1) {
  const socket = new WebSocket(url)
  socket.addEventListener('open', () =>
    socket.send(
      `{"id":1,"connect":{"token":"user:ann"}}\n{"id":2,"subscribe":{"channel":"${topic}"}}`,
    ),
  )
  socket.addEventListener(
    'message',
    () => {
      ready += 1
      if (ready === Number(count)) process.send?.('ready')
    },
    { once: true },
  )
  socket.addEventListener('close', ({ code }) => {
    codes.push(code)
    if (codes.length < Number(count)) return
    process.send?.(codes)
    process.exit()
  })
}
process.on('disconnect', () => process.exit())
