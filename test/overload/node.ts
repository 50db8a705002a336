/** An overload whose loop is late as a test says, and whose other signals are what it says. */
import { createOverload, type Said } from '../../src/overload/overload.ts'
import { createTestClock } from '../clock.ts'
import { createTestLog } from '../harness.ts'

export function setUp() {
  const time = createTestClock()
  const log = createTestLog()
  const signals = { readsMs: 0, writesMs: 0, cpuMs: 0, stolenMs: 0, memory: 0, connections: 0 }
  const told: Said[] = []
  let beat = (): void => {}
  let everyMs = 0
  const overload = createOverload({
    clock: {
      ...time,
      every(ms, run) {
        everyMs = ms
        beat = run
        return () => {}
      },
    },
    log,
    readsWaitMs: () => signals.readsMs,
    writesWaitMs: () => signals.writesMs,
    cpuMs: () => signals.cpuMs,
    stolenMs: () => signals.stolenMs,
    memoryShare: () => signals.memory,
    connectionShare: () => signals.connections,
    announce: async (said) => void told.push(said),
  })
  overload.start()
  return {
    clock: time,
    log,
    signals,
    told,
    overload,
    /** Turns of the loop, each so late with requests, for at least so long. */
    turns(lateMs: number, forMs: number) {
      const until = time.tick() + forMs
      while (time.tick() < until) {
        overload.begin(time.tick())
        time.advance(everyMs + lateMs)
        overload.begin(time.tick())
        beat()
      }
    },
    /** The same, with one request at the end of each. */
    stalls(lateMs: number, forMs: number) {
      const until = time.tick() + forMs
      while (time.tick() < until) {
        time.advance(everyMs + lateMs)
        overload.begin(time.tick())
        beat()
      }
    },
    beat: () => beat(),
    beatEveryMs: () => everyMs,
  }
}
