/** Makes small archives, right or wrong in one chosen way. */
import { crc32, deflateRawSync } from 'node:zlib'

export interface ZipFile {
  readonly name: string
  readonly data: Uint8Array | string
  readonly method?: 'stored' | 'deflated'
  /** A second name length is where careless readers go wrong. */
  readonly localExtraBytes?: number
  readonly flags?: number
  readonly crc?: number
  readonly methodCode?: number
}

export function zip(files: readonly ZipFile[], comment = ''): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const file of files) {
    const plain = Buffer.from(file.data)
    const isStored = file.method === 'stored'
    const packed = isStored ? plain : deflateRawSync(plain)
    const code = file.methodCode ?? (isStored ? 0 : 8)
    const crc = file.crc ?? crc32(plain)
    const extra = Buffer.alloc(file.localExtraBytes ?? 0)
    const name = Buffer.from(file.name)

    const local = Buffer.alloc(30)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(code, 8)
    local.writeUInt32LE(crc, 14)
    local.writeUInt32LE(packed.length, 18)
    local.writeUInt32LE(plain.length, 22)
    local.writeUInt16LE(name.length, 26)
    local.writeUInt16LE(extra.length, 28)

    const entry = Buffer.alloc(46)
    entry.writeUInt32LE(0x02014b50, 0)
    entry.writeUInt16LE(file.flags ?? 0, 8)
    entry.writeUInt16LE(code, 10)
    entry.writeUInt32LE(crc, 16)
    entry.writeUInt32LE(packed.length, 20)
    entry.writeUInt32LE(plain.length, 24)
    entry.writeUInt16LE(name.length, 28)
    entry.writeUInt32LE(offset, 42)

    parts.push(local, name, extra, packed)
    directory.push(entry, name)
    offset += local.length + name.length + extra.length + packed.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(files.length, 8)
  end.writeUInt16LE(files.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  end.writeUInt16LE(comment.length, 20)
  return Buffer.concat([...parts, central, end, Buffer.from(comment)])
}
