/**
 * Other caches for JavaScript as peers: fetched once from npm into a folder outside the repository, each as
 * its maker would be asked for 10,000 entries in memory, and once more with everything off that copies.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Pinned, because a bench names what it measured. */
const versions = { bentocache: '1.6.1', cacheable: '2.5.0' }
const packages = Object.entries(versions).map(([name, version]) => `${name}@${version}`)

const home = join(tmpdir(), `belfry-bench-peers-${packages.join('-')}`)

/** What they are asked for here. */
export interface PeerCache {
  readonly name: string
  set(key: string, value: unknown): Promise<unknown>
  get(key: string): Promise<unknown>
  getOrSet(key: string, load: () => Promise<unknown>): Promise<unknown>
}

type Settings = Readonly<Record<string, unknown>>

interface Bento {
  set(entry: Settings): Promise<unknown>
  get(entry: Settings): Promise<unknown>
  getOrSet(entry: Settings): Promise<unknown>
}

interface Cacheable {
  set(key: string, value: unknown, ttl: string): Promise<unknown>
  get(key: string): Promise<unknown>
  getOrSet(key: string, load: () => Promise<unknown>, options: Settings): Promise<unknown>
}

interface BentoModule {
  readonly BentoCache: new (options: Settings) => Bento
  readonly bentostore: () => { useL1Layer(driver: unknown): unknown }
}

interface BentoDrivers {
  readonly memoryDriver: (options: Settings) => unknown
}

interface CacheableModule {
  readonly Cacheable: new (options: Settings) => Cacheable
  readonly createKeyv: (options: Settings) => unknown
}

const modules = join(home, 'node_modules')
const fetched = async <T>(path: string): Promise<T> => (await import(join(modules, path))) as T

/** Empty, and a notice, where the registry cannot be reached. */
export async function cachePeers(entriesMax: number): Promise<readonly PeerCache[]> {
  if (!Object.keys(versions).every((name) => existsSync(join(modules, name, 'package.json')))) {
    mkdirSync(home, { recursive: true })
    writeFileSync(join(home, 'package.json'), '{"private":true}')
    const { exitCode, stderr } = Bun.spawnSync([process.execPath, 'add', '--exact', ...packages], {
      cwd: home,
      stdout: 'ignore',
      stderr: 'pipe',
    })
    if (exitCode !== 0) {
      console.warn(`skipped: peers ${packages.join(', ')}: ${stderr.toString().trim()}`)
      return []
    }
  }
  const { BentoCache, bentostore } = await fetched<BentoModule>('bentocache/build/index.js')
  const { memoryDriver } = await fetched<BentoDrivers>('bentocache/build/src/drivers/memory.js')
  const { Cacheable, createKeyv } = await fetched<CacheableModule>('cacheable/dist/index.mjs')
  const bento = (serialize: boolean): Bento => {
    const own = bentostore().useL1Layer(memoryDriver({ maxItems: entriesMax, serialize }))
    return new BentoCache({ default: 'own', stores: { own } })
  }
  const cacheable = (useClone: boolean): Cacheable =>
    new Cacheable({ primary: createKeyv({ lruSize: entriesMax, useClone }) })
  return [
    ofBento('bentocache', bento(true)),
    ofBento('bentocache, unserialised', bento(false)),
    ofCacheable('cacheable', cacheable(true)),
    ofCacheable('cacheable, uncloned', cacheable(false)),
  ]
}

const ttl = '1h'

function ofBento(name: string, cache: Bento): PeerCache {
  return {
    name: `${name} ${versions.bentocache}`,
    set: (key, value) => cache.set({ key, value, ttl }),
    get: (key) => cache.get({ key }),
    getOrSet: (key, factory) => cache.getOrSet({ key, factory, ttl }),
  }
}

function ofCacheable(name: string, cache: Cacheable): PeerCache {
  return {
    name: `${name} ${versions.cacheable}`,
    set: (key, value) => cache.set(key, value, ttl),
    get: (key) => cache.get(key),
    getOrSet: (key, load) => cache.getOrSet(key, load, { ttl }),
  }
}
