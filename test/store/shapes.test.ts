import { describe } from 'bun:test'
import { publicationsContract } from '../contracts/publications.ts'
import { retentionContract, sharedRetentionContract } from '../contracts/retention.ts'
import { sharesContract } from '../contracts/shares.ts'
import { sharedStoreContract, storeContract, storeTables, type Shape } from '../contracts/store.ts'
import { openStore, tempFolder } from '../harness.ts'
import { requireService, startSqld } from '../services.ts'

const ownFile = async (): Promise<Shape> => {
  const folder = tempFolder()
  return {
    open: (options) => openStore(folder.file('a.db'), storeTables, options),
    [Symbol.asyncDispose]: async () => folder[Symbol.dispose](),
  }
}

describe('a file', () => {
  storeContract(ownFile)
  publicationsContract(ownFile)
  sharesContract(ownFile)
  retentionContract(ownFile)
})

const shipped = async (): Promise<Shape> => {
  const folder = tempFolder()
  const copy = await startSqld()
  return {
    open: (options) =>
      openStore(
        { kind: 'file', file: folder.file('a.db'), replicas: [{ url: copy.url }] },
        storeTables,
        options,
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
  retentionContract(shipped)
})

const remote = async (): Promise<Shape> => {
  const primary = await startSqld()
  return {
    open: (options) =>
      openStore(
        { kind: 'remote', primary: { url: primary.url }, replicas: [] },
        storeTables,
        options,
      ),
    [Symbol.asyncDispose]: () => primary[Symbol.asyncDispose](),
  }
}

describe.skipIf(!requireService('sqld'))('a remote primary', () => {
  storeContract(remote)
  publicationsContract(remote)
  sharesContract(remote)
  sharedStoreContract(remote)
  retentionContract(remote)
  sharedRetentionContract(remote)
})

const embedded = async (): Promise<Shape> => {
  const folder = tempFolder()
  const primary = await startSqld()
  let nodes = 0
  return {
    open: (options) =>
      openStore(
        {
          kind: 'remote',
          primary: { url: primary.url },
          replicas: [],
          replicaFile: folder.file(`node${nodes++}/replica.db`),
        },
        storeTables,
        options,
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
  retentionContract(embedded)
  sharedRetentionContract(embedded)
})
