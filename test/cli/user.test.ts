import { expect, test } from 'bun:test'
import { tempFolder } from '../harness.ts'
import { runBelfry, spawnBelfry } from '../process.ts'

test('belfry user create, list, role, disable and enable: through the running server', async () => {
  using folder = tempFolder()
  const file = `import { app } from 'belfry'\nexport default app({ name: 'club', auth: { accounts: true } })\n`
  await Bun.write(folder.file('app.ts'), file)
  const belfry = (...args: string[]) => runBelfry({ args: ['user', ...args], cwd: folder.path })
  const plan = await runBelfry({ args: ['plan', 'app.ts'], cwd: folder.path })
  expect(plan.stdout).toBe(
    'app club\n\naccounts at /api/auth/\n  sign-up open, without mail\n' +
      '  limit 5 failed sign-ins in 900000 ms for each address and account\n',
  )
  const none = await belfry('list', 'app.ts')
  expect([none.exitCode, none.stderr]).toEqual([1, expect.stringContaining('no server')])
  await using server = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })

  const made = await belfry('create', 'app.ts', '--email', 'Ann@example.com', '--role', 'admin')
  expect([made.exitCode, made.stderr]).toEqual([0, expect.stringContaining('is not shown again')])
  const body = JSON.stringify({ email: 'ann@example.com', password: made.stdout.trim() })
  const signIn = async () =>
    await fetch(`${server.url}/api/auth/sign-in`, {
      ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body },
    })
  const answer = await signIn()
  const { user } = (await answer.json()) as { user: { id: string; role: string } }
  expect([answer.status, user.role]).toEqual([200, 'admin'])

  const { id } = user
  const line = (rest: string) =>
    expect.stringMatching(new RegExp(`^${id}  ann@example.com  ${rest}\n$`))
  expect((await belfry('list', 'app.ts')).stdout).toEqual(line('admin  since .*, verified'))
  const role = await belfry('role', 'app.ts', '--id', id, '--role', 'editor')
  expect(role.stdout).toEqual(line('editor  .*'))
  expect((await belfry('role', 'app.ts', '--id', id)).stdout).toEqual(line('-  .*'))
  expect((await belfry('disable', 'app.ts', '--id', id)).stdout).toEqual(line('.*, disabled'))
  expect((await signIn()).status).toBe(401)
  expect((await belfry('enable', 'app.ts', '--id', id)).stdout).toEqual(line('.*, verified'))
  expect((await signIn()).status).toBe(200)

  const again = await belfry('create', 'app.ts', '--email', 'ann@example.com')
  expect([again.exitCode, again.stderr]).toEqual([1, expect.stringContaining('is taken')])
  expect((await belfry('create', 'app.ts', '--email', 'ann')).exitCode).toBe(2)
  expect((await belfry('role', 'app.ts', '--id', 'nobody', '--role', 'a')).exitCode).toBe(1)
  expect((await belfry('role', 'app.ts', '--role', 'a')).stderr).toContain('say which')
  expect((await belfry('shake', 'app.ts')).stderr).toContain('say what to do')
})

test('belfry user, of an app without accounts, says how to have some', async () => {
  using folder = tempFolder()
  const file = `import { app } from 'belfry'\nexport default app({ name: 'none' })\n`
  await Bun.write(folder.file('app.ts'), file)
  await using _ = await spawnBelfry({ args: ['serve', 'app.ts'], cwd: folder.path })
  const { exitCode, stderr } = await runBelfry({
    args: ['user', 'list', 'app.ts'],
    cwd: folder.path,
  })
  expect([exitCode, stderr]).toEqual([1, expect.stringContaining('auth: { accounts: true }')])
})
