import { describe } from 'bun:test'
import { publicationsContract } from '../contracts/publications.ts'
import { sharedStoreContract, storeContract, storeTables, type Shape } from '../contracts/store.ts'
import { openStore, tempFolder } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'

const file = async (): Promise<Shape> => {
  const folder = tempFolder()
  return {
    open: () => openStore(folder.file('a.db'), storeTables),
    [Symbol.asyncDispose]: async () => folder[Symbol.dispose](),
  }
}

describe('a file', () => {
  storeContract(file)
  publicationsContract(file)
})

const shipped = async (): Promise<Shape> => {
  const folder = tempFolder()
  const copy = await startSqld()
  return {
    open: () =>
      openStore(
        { kind: 'file', file: folder.file('a.db'), replicas: [{ url: copy.url }] },
        storeTables,
      ),
    async [Symbol.asyncDispose]() {
      await copy[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

describe.skipIf(!requireService('sqld'))('a file with a shipped copy', () => {
  storeContract(shipped)
  publicationsContract(shipped)
})

const remote = async (): Promise<Shape> => {
  const primary = await startSqld()
  return {
    open: () =>
      openStore({ kind: 'remote', primary: { url: primary.url }, replicas: [] }, storeTables),
    [Symbol.asyncDispose]: () => primary[Symbol.asyncDispose](),
  }
}

describe.skipIf(!requireService('sqld'))('a remote primary', () => {
  storeContract(remote)
  publicationsContract(remote)
  sharedStoreContract(remote)
})

const embedded = async (): Promise<Shape> => {
  const folder = tempFolder()
  const primary = await startSqld()
  let nodes = 0
  return {
    open: () =>
      openStore(
        {
          kind: 'remote',
          primary: { url: primary.url },
          replicas: [],
          replicaFile: folder.file(`node${nodes++}/replica.db`),
        },
        storeTables,
      ),
    async [Symbol.asyncDispose]() {
      await primary[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

describe.skipIf(!requireService('sqld'))('a remote primary with an embedded replica', () => {
  storeContract(embedded)
  publicationsContract(embedded)
  sharedStoreContract(embedded)
})
