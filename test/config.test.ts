import { describe, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { readConfig } from '../src/config.ts'
import { Fault } from '../src/fault.ts'

describe('readConfig', () => {
  test('defaults', () => {
    const { env, ...config } = readConfig('energy', {})
    expect(config).toEqual({
      host: '0.0.0.0',
      port: 3000,
      databaseFile: resolve('data/energy.db'),
      auth: {
        secret: undefined,
        publicKey: undefined,
        issuer: undefined,
        audience: undefined,
        apiKey: undefined,
      },
      corsOrigins: [],
      logLevel: 'info',
    })
    expect(env).toEqual({})
  })

  test.each([
    ['file:./a.db', resolve('a.db')],
    ['file:a.db', resolve('a.db')],
    ['file:/srv/a.db', '/srv/a.db'],
    ['file:///srv/a.db', '/srv/a.db'],
    ['file:///srv/a%20b.db', '/srv/a b.db'],
    ['file://localhost/srv/a.db', '/srv/a.db'],
    ['file:a b.db', resolve('a b.db')],
  ])('DATABASE_URL %s is %s', (url, file) => {
    expect(readConfig('a', { DATABASE_URL: url }).databaseFile).toBe(file)
  })

  test.each([
    'file:',
    'file://elsewhere/a.db',
    'file:data/',
    'file::memory:',
    'a.db',
    'file:a.db?x=1',
  ])('DATABASE_URL %s is refused', (url) => {
    expect(() => readConfig('a', { DATABASE_URL: url })).toThrow('the environment is not valid')
  })

  test('every wrong variable is named at once', () => {
    const env = {
      PORT: '70000',
      LOG_LEVEL: 'loud',
      DATABASE_URL: 'libsql://db.example',
      CORS_ORIGIN: 'example.com',
      REDIS_URL: 'redis://localhost',
      JWKS_URL: '',
    }
    let fields: readonly { field: string }[] = []
    try {
      readConfig('a', env)
    } catch (thrown) {
      if (thrown instanceof Fault) fields = thrown.fields ?? []
    }
    expect(fields.map(({ field }) => field).toSorted()).toEqual([
      'CORS_ORIGIN',
      'DATABASE_URL',
      'LOG_LEVEL',
      'PORT',
      'REDIS_URL',
    ])
  })
})
