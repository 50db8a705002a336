/** Starts a server of a bench: a file of this folder that prints `{"port":…}` as its first line. */
import { pinned } from './load.ts'

export interface StartedServer {
  readonly port: number
  readonly pid: number
  stop(): Promise<void>
}

/** On one core where that can be had. */
export async function startServer([file = '', ...args]: readonly string[]): Promise<StartedServer> {
  const child = Bun.spawn([...pinned, process.execPath, `${import.meta.dir}/${file}`, ...args], {
    stdout: 'pipe',
    stderr: 'inherit',
    stdin: 'ignore',
  })
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL')
    await child.exited
  }
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of child.stdout) {
    text += decoder.decode(chunk, { stream: true })
    if (!text.includes('\n')) continue
    const { port } = JSON.parse(text) as { readonly port: number }
    return { port, pid: child.pid, stop }
  }
  await stop()
  throw new Error(`${file} did not start`)
}
