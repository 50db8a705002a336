/** The brokers under their contract, and what only the one over Redis has to bear. */
import { describe } from 'bun:test'
import { brokerContract, declared } from '../contracts/broker.ts'
import { requireService, startRedis } from '../services.ts'
import { memoryNode, redisNode } from './node.ts'

describe('in memory', () =>
  brokerContract(async () => {
    const node = memoryNode(declared)
    return { nodes: [node], [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() }
  }))

describe.skipIf(!requireService('redis-server'))('over Redis', () => {
  describe.each([1, 2, 3])('with %i nodes', (count) =>
    brokerContract(async () => {
      const server = await startRedis()
      const options = { port: server.port }
      const made = Array.from({ length: count }, () => redisNode(declared, options))
      const nodes = await Promise.all(made)
      return {
        nodes,
        async [Symbol.asyncDispose]() {
          for (const node of nodes) await node[Symbol.asyncDispose]()
          await server[Symbol.asyncDispose]()
        },
      }
    }),
  )
})
