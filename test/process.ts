/** Belfry as its users start it: a process of its own, spoken to through its port. */
import { readdirSync, readFileSync } from 'node:fs'
import { must } from '../src/lib/assert.ts'
import { calm } from './harness.ts'

export interface BelfryProcess extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly pid: number
  readonly exited: Promise<number>
  kill(signal?: NodeJS.Signals): void
  /** Stops it where it stands: connections stay open, and nobody answers. */
  pause(): void
  resume(): void
  stderr(): Promise<string>
}

export interface SpawnOptions {
  /** The compiled binary, or by default this source under Bun. */
  readonly command?: readonly string[]
  readonly args: readonly string[]
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** The command in front of the arguments. */
export const source: readonly string[] = [
  process.execPath,
  'run',
  `${import.meta.dir}/../src/main.ts`,
]

/** Only what a program needs to start: nothing of this machine's settings leaks into a test. */
const bareEnv = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', ...calm }

/** Runs a verb to its end. */
export async function runBelfry({ command = source, args, cwd, env }: SpawnOptions) {
  const child = Bun.spawn([...command, ...args], {
    cwd,
    env: { ...bareEnv, ...env },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { stdout, stderr, exitCode: await child.exited }
}

/** Starts `serve` on a free port and waits until it says where it is live. */
export async function spawnBelfry({
  command = source,
  args,
  cwd,
  env,
}: SpawnOptions): Promise<BelfryProcess> {
  const child = Bun.spawn([...command, ...args], {
    cwd,
    env: { ...bareEnv, PORT: '0', HOST: '127.0.0.1', ...env },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const stderr = new Response(child.stderr).text()
  const url = await announcedUrl(child.stdout)
  if (url === undefined) throw new Error(`belfry did not start:\n${await stderr}`)
  return {
    url,
    port: Number(new URL(url).port),
    pid: child.pid,
    exited: child.exited,
    kill: (signal = 'SIGTERM') => child.kill(signal),
    pause: () => child.kill('SIGSTOP'),
    resume: () => child.kill('SIGCONT'),
    stderr: () => stderr,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await child.exited
    },
  }
}

async function announcedUrl(stdout: ReadableStream<Uint8Array>): Promise<string | undefined> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of stdout) {
    text += decoder.decode(chunk, { stream: true })
    const match = /live at (http:\S+)/.exec(text)
    if (match) return must(match[1], () => 'the pattern has a group')
  }
  return undefined
}

/** Of a process, those it started itself. Linux. */
export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8')
      .split(' ')
      .filter((child) => child !== '')
      .map(Number),
  )
}
