/** Copies to `.zst` and back. Packing is a worker's (`packer.ts`): a server goes on meanwhile. */
import { createReadStream, createWriteStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { createZstdDecompress } from 'node:zlib'
import { Fault } from '../fault.ts'
import { diskFault } from './files.ts'
import type { PackAnswer, PackRequest } from './packer.ts'

/** Compresses, fsyncs and reads back. Resolves with the bytes of `to`. Faults: `unavailable`. */
export async function pack(request: PackRequest): Promise<number> {
  const worker = new Worker(new URL('./packer.ts', import.meta.url))
  try {
    const answer = await new Promise<PackAnswer>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<PackAnswer>) => resolve(data)
      const die = (why: string): void =>
        reject(new Fault('internal', 'the packing thread has stopped', { cause: why }))
      worker.addEventListener('error', ({ message }) => die(message))
      worker.addEventListener('close', () => die('it ended'))
      worker.postMessage(request)
    })
    if ('bytes' in answer) return answer.bytes
    const { code, message } = answer
    const cause = Object.assign(new Error(message), { code })
    throw diskFault(cause, `the backup cannot be written: ${request.to}`)
  } finally {
    worker.terminate()
  }
}

/** RFC 8878 §3.1.1, and the first 16 bytes of every SQLite file. */
const zstdMagic = '28b52ffd'
const sqliteMagic = Buffer.from('SQLite format 3\0').toString('hex')

/** Unpacks a backup, or copies a plain database file. Faults: `not_found`, `invalid`, `unavailable`. */
export async function unpack(from: string, to: string): Promise<void> {
  const head = (await headOf(from)).toString('hex')
  const isPacked = head.startsWith(zstdMagic)
  if (!isPacked && !head.startsWith(sqliteMagic)) {
    throw new Fault('invalid', `${from} is neither a backup (.db.zst) nor a database`)
  }
  const source = createReadStream(from)
  const target = createWriteStream(to, { flags: 'wx', flush: true })
  try {
    await (isPacked ? pipeline(source, createZstdDecompress(), target) : pipeline(source, target))
  } catch (cause) {
    const isDisk = cause instanceof Error && 'syscall' in cause
    if (isDisk) throw diskFault(cause, `${from} cannot be unpacked`)
    throw new Fault('unavailable', `${from} is damaged: it cannot be unpacked`, { cause })
  }
  if (isPacked) await requireWhole(from, to)
}

/** Bun 1.4.5 unpacks a file that was cut off without a word: the database itself says how long it is. */
async function requireWhole(from: string, unpacked: string): Promise<void> {
  const head = await headOf(unpacked)
  const { size } = await stat(unpacked)
  if (size > 0 && !head.toString('hex').startsWith(sqliteMagic)) {
    throw new Fault('unavailable', `${from} is damaged: no database is in it`)
  }
  if (head.length === headBytes) {
    // https://www.sqlite.org/fileformat.html §1.3; a page size of 1 stands for 65536.
    const pageBytes = head.readUInt16BE(16)
    if (size === head.readUInt32BE(28) * (pageBytes === 1 ? 65_536 : pageBytes)) return
  }
  throw new Fault('unavailable', `${from} is damaged: it is cut off`)
}

/** An SQLite file's header. */
const headBytes = 100

async function headOf(file: string): Promise<Buffer> {
  try {
    const handle = await open(file, 'r')
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(headBytes), 0, headBytes, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await handle.close()
    }
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') {
      throw new Fault('not_found', `there is no file ${file}`)
    }
    throw diskFault(cause, `${file} cannot be read`)
  }
}
