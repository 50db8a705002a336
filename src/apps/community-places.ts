/** What the sample does not bring: the general community, and servers with their channels. */
import type { channels, servers } from './community-tables.ts'

/** Of posts whose tags are too rare to be communities. */
export const general = {
  id: 'quantum-computing',
  name: 'Quantum computing',
  description: 'Whatever has no community of its own.',
} as const

export const serverRows: readonly (typeof servers.$inferInsert)[] = [
  {
    id: 'qubit-cafe',
    name: 'The Qubit Café',
    description: 'Talk about quantum computing, from first steps to papers.',
  },
  {
    id: 'circuit-workshop',
    name: 'Circuit Workshop',
    description: 'Building and debugging circuits together: Qiskit, Q#, Cirq.',
  },
  {
    id: 'error-correction',
    name: 'Error Correction Reading Group',
    description: 'A paper every other week: codes, decoders, thresholds.',
  },
]

const channelsOf: Readonly<Record<string, readonly (readonly [name: string, about: string])[]>> = {
  'qubit-cafe': [
    ['welcome', 'Who you are, and what brought you here.'],
    ['general', 'Anything about quantum computing.'],
    ['beginners', 'No question is too small.'],
    ['papers', 'What you are reading.'],
  ],
  'circuit-workshop': [
    ['qiskit', 'IBM Q and Qiskit.'],
    ['q-sharp', 'Q# and the Quantum Development Kit.'],
    ['help', 'A circuit that does not do what it should.'],
  ],
  'error-correction': [
    ['announcements', 'The next paper, and when.'],
    ['surface-codes', 'Surface codes and their relatives.'],
    ['decoders', 'From matching to neural networks.'],
  ],
}

export const channelRows: readonly (typeof channels.$inferInsert)[] = Object.entries(
  channelsOf,
).flatMap(([serverId, list]) =>
  list.map(([name, description], at) => ({
    id: `${serverId}-${name}`,
    serverId,
    position: at + 1,
    name,
    description,
  })),
)
