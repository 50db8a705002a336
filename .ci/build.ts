/**
 * Compiles Belfry into one executable that needs nothing beside it: `bun run build` → dist/belfry.
 *
 * Three things Bun cannot find by itself are helped here:
 * - threads are entry points of their own, because the bundler does not follow `new Worker(…)`;
 * - libsql picks its native module by a computed `require`, so the choice is made now, for the
 *   machine that builds, and the literal `require` lets Bun embed the module;
 * - `/belfry.js` is bundled from sources, which the binary has none of: its text is put in now.
 */
import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { BunPlugin } from 'bun'
import { clientBundle } from '../src/http/client-bundle.ts'

const root = resolve(import.meta.dir, '..')

/** Which of libsql's packages is for this machine. As libsql: glibc first, musl if that is all there is. */
const nativePackages = [
  `@libsql/${process.platform}-${process.arch}-gnu`,
  `@libsql/${process.platform}-${process.arch}-musl`,
  `@libsql/${process.platform}-${process.arch}-msvc`,
  `@libsql/${process.platform}-${process.arch}`,
]

/** Programs of workers. Their names must differ: in the binary they lie side by side. */
const threads = ['src/store/thread.ts', 'src/backup/packer.ts']

const computedRequire = 'return require(`@libsql/${target}`);'

export interface BuildOptions {
  /** Where the executable goes, absolute or from the repository's root. */
  readonly outfile: string
  /** What it runs; `src/main.ts` unless said otherwise. */
  readonly entry?: string | undefined
}

export interface Built {
  readonly path: string
  readonly bytes: number
  readonly ms: number
}

/** Compiles. Throws with the bundler's own messages when it cannot. */
export async function buildBinary({
  outfile,
  entry = 'src/main.ts',
}: BuildOptions): Promise<Built> {
  const startedAt = performance.now()
  const path = resolve(root, outfile)
  await mkdir(dirname(path), { recursive: true })
  // Before the other: a bundler that waits for a bundler waits forever.
  const client = await clientBundle()
  await Bun.build({
    entrypoints: [entry, ...threads].map((path) => resolve(root, path)),
    root,
    // Flat names put the threads beside the main program inside the binary, so that
    // `new URL('./thread.ts', import.meta.url)` finds it there as it does in src/store.
    naming: { entry: '[name].[ext]' },
    // The folder of the binary's user is not ours: no settings are picked up from it.
    compile: { outfile: path, autoloadBunfig: false, autoloadDotenv: false },
    minify: { whitespace: true, syntax: true, identifiers: false },
    plugins: [embedLibsql(), embedClient(client)],
  })
  const { size } = await stat(path)
  return { path, bytes: size, ms: performance.now() - startedAt }
}

function embedLibsql(): BunPlugin {
  return {
    name: 'embed-libsql',
    setup(build) {
      build.onLoad({ filter: /[\\/]node_modules[\\/]libsql[\\/]index\.js$/ }, async ({ path }) => {
        const source = await Bun.file(path).text()
        if (!source.includes(computedRequire)) {
          throw new Error(
            `${path} no longer reads "${computedRequire}": look how it loads its native module`,
          )
        }
        return {
          contents: source.replace(
            computedRequire,
            `return require('${presentPackage(dirname(path))}');`,
          ),
          loader: 'js',
        }
      })
    },
  }
}

function embedClient(text: string): BunPlugin {
  return {
    name: 'embed-client',
    setup(build) {
      build.onLoad({ filter: /[\\/]src[\\/]http[\\/]client-bundle\.ts$/ }, () => ({
        contents: `export const clientBundle = async () => ${JSON.stringify(text)}`,
        loader: 'js',
      }))
    },
  }
}

function presentPackage(from: string): string {
  for (const name of nativePackages) {
    try {
      Bun.resolveSync(name, from)
      return name
    } catch {
      // Not installed: it is for another machine.
    }
  }
  throw new Error(`none of ${nativePackages.join(', ')} is installed: run \`bun install\``)
}

if (import.meta.main) {
  const { path, bytes, ms } = await buildBinary({ outfile: 'dist/belfry' })
  console.log(`${path}  ${(bytes / 2 ** 20).toFixed(1)} MiB  ${(ms / 1000).toFixed(1)} s`)
}
