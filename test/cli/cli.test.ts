import { describe, expect, test } from 'bun:test'
import { createAuth } from '../../src/auth/auth.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { createTestLog, tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

const secret = 'a secret of at least thirty-two bytes'

describe('belfry', () => {
  test('token signs what auth accepts', async () => {
    using folder = tempFolder()
    const run = (args: string[], env: Record<string, string> = { JWT_SECRET: secret }) =>
      runBelfry({ args: ['token', ...args], cwd: folder.path, env })
    const { stdout, exitCode } = await run(['--sub', 'ann', '--role', 'scraper'])
    expect(exitCode).toBe(0)
    const auth = await createAuth({ clock: systemClock, log: createTestLog() }, { secret })
    expect(await auth.identify(stdout.trim())).toMatchObject({
      ok: true,
      identity: { user: { id: 'ann', role: 'scraper' } },
    })
    const own = await run(['--sub', 'ann', '--topics', 'user:ann,news'])
    expect(await auth.identify(own.stdout.trim())).toMatchObject({
      identity: { user: { id: 'ann', channels: ['user:ann', 'news'] } },
    })
    const declared = await run(['--sub', 'ann', '--claims', '{"tenant":"acme","sub":"bob"}'])
    expect(await auth.identify(declared.stdout.trim())).toMatchObject({
      identity: { user: { id: 'ann', tenant: 'acme' } },
    })
    expect((await run(['--sub', 'a', '--claims', '[1]'])).stderr).toContain('must be a JSON object')
    const pass = await run(['--topic', 'chat:a'])
    expect(await auth.identifyTopic(pass.stdout.trim())).toMatchObject({
      pass: { topic: 'chat:a', user: '' },
    })
    expect((await run([])).stderr).toContain('say whose token: --sub <id>')
    expect((await run(['--sub', 'a'], {})).stderr).toContain('JWT_SECRET is not set')
    expect((await run(['--sub', 'a', '--ttl', 'soon'])).stderr).toContain('soon is no duration')
    expect((await run(['--bus', 'a'])).exitCode).toBe(2)
  })

  test('health is 0 while the server is well and 1 when it is gone; SIGTERM ends it with 0', async () => {
    using folder = tempFolder()
    const app = `import { app } from 'belfry'\nexport default app({ name: 'empty' })\n`
    await Bun.write(folder.file('app.ts'), app)
    await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
    const health = () =>
      runBelfry({ args: ['health'], cwd: folder.path, env: { PORT: String(server.port) } })
    const well = await health()
    expect([well.exitCode, JSON.parse(well.stdout)]).toEqual([
      0,
      expect.objectContaining({ status: 'ok', app: 'empty', connections: 0 }),
    ])
    expect(await (await fetch(server.url)).text()).toContain('empty is served by Belfry')
    server.kill('SIGTERM')
    expect(await server.exited).toBe(0)
    expect((await health()).exitCode).toBe(1)
  })

  test('help and version', async () => {
    using folder = tempFolder()
    const help = await runBelfry({ args: [], cwd: folder.path })
    expect(help.exitCode).toBe(0)
    expect(help.stdout).toContain('belfry serve <app.ts> | serve --app <name>')
    const version = await runBelfry({ args: ['--version'], cwd: folder.path })
    expect(version.stdout).toMatch(/^belfry \d+\.\d+\.\d+\n$/)
  })
})
