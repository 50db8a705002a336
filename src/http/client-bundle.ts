/**
 * `src/client` as one file for browsers. From the sources: bundled when first asked for. In the compiled
 * binary there are none: `.ci/build.ts` puts the finished text in this file's place.
 */
import { fileURLToPath } from 'node:url'
import { Fault } from '../fault.ts'

/** Faults: `internal`, with the bundler's own words. */
export async function clientBundle(): Promise<string> {
  const entry = fileURLToPath(new URL('../client/client.ts', import.meta.url))
  const built = await Bun.build({
    entrypoints: [entry],
    target: 'browser',
    format: 'esm',
    minify: true,
    throw: false,
  })
  const [file] = built.outputs
  if (built.success && file) return await file.text()
  throw new Fault('internal', 'the client cannot be bundled', {
    cause: built.logs.map(({ message }) => message).join('\n'),
  })
}
