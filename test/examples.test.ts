import { expect, test } from 'bun:test'
import { symlinkSync } from 'node:fs'
import { tempFolder } from './harness.ts'

const root = `${import.meta.dir}/..`

/** Whatever a user may copy: the README's TypeScript, and the examples of the declarations. */
async function examples(): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  const readme = await Bun.file(`${root}/README.md`).text()
  for (const [at, [, code = '']] of [...readme.matchAll(/```ts\n([^]*?)```/g)].entries()) {
    found.set(`readme-${at + 1}.ts`, code)
  }
  for await (const path of new Bun.Glob('src/*/declare.ts').scan(root)) {
    const text = await Bun.file(`${root}/${path}`).text()
    for (const [at, [, block = '']] of [...text.matchAll(/@example\n([^]*?)\n \*\//g)].entries()) {
      const name = `${path.replaceAll('/', '-').replace('.ts', '')}-${at + 1}.ts`
      found.set(name, block.replace(/^ \* ?/gm, ''))
    }
  }
  return found
}

test('every example of the README and of the declarations compiles, and every app is a plan', async () => {
  using folder = tempFolder()
  symlinkSync(`${root}/node_modules`, folder.file('node_modules'))
  const found = await examples()
  expect(found.size).toBeGreaterThanOrEqual(6)
  for (const [name, code] of found) await Bun.write(folder.file(name), code)
  const base = await Bun.file(`${root}/tsconfig.json`).json()
  const compilerOptions = {
    ...base.compilerOptions,
    paths: { belfry: [`${root}/src/kit.ts`] },
    typeRoots: [`${root}/node_modules`, `${root}/node_modules/@types`],
    // A user's file is not held to all that this house asks of itself.
    noPropertyAccessFromIndexSignature: false,
  }
  const files = [...found.keys(), `${root}/db/files.d.ts`]
  await Bun.write(folder.file('tsconfig.json'), JSON.stringify({ compilerOptions, files }))
  const check = Bun.spawn([`${root}/node_modules/.bin/tsc`, '--noEmit', '-p', folder.path], {
    stdout: 'pipe',
  })
  expect(await new Response(check.stdout).text()).toBe('')
  expect(await check.exited).toBe(0)

  for (const [name, code] of found) {
    if (!code.includes('export default app(')) continue
    const child = Bun.spawn([process.execPath, `${root}/src/main.ts`, 'plan', folder.file(name)], {
      stdout: 'pipe',
      stderr: 'pipe',
    })
    expect(await new Response(child.stderr).text(), name).toBe('')
    expect(await child.exited, name).toBe(0)
  }
}, 60_000)
