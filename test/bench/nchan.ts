/** Nchan, as a peer of benches: one nginx worker, with as much history as Belfry's topic has here. */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { tempFolder, until } from '../harness.ts'
import { freePort } from '../services.ts'
import { pinned } from './load.ts'
import type { ForeignPeer } from './nats.ts'
import { masked, sample, topicName, upgradeOf } from './wire.ts'

/** Where Debian puts it. */
const modulePath = '/usr/lib/nginx/modules/ngx_nchan_module.so'

export const hasNchan = Bun.which('nginx') !== null && existsSync(modulePath)

const configOf = (port: number): string => `
load_module ${modulePath};
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 19000; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path body; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  proxy_temp_path proxy;
  nchan_shared_memory_size 128M;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = /sub {
      nchan_subscriber websocket;
      nchan_channel_id ${topicName};
      nchan_subscriber_first_message newest;
    }
    location = /pub {
      nchan_publisher websocket;
      nchan_channel_id ${topicName};
      nchan_message_buffer_length 100;
      nchan_message_timeout 60s;
    }
    location = /status { nchan_stub_status; }
  }
}
`

export async function startNchan(): Promise<ForeignPeer> {
  const folder = tempFolder()
  const path = folder.file('nchan')
  mkdirSync(path)
  // The worker is another user than the master where that is root.
  chmodSync(folder.path, 0o755)
  chmodSync(path, 0o777)
  const port = await freePort()
  writeFileSync(`${path}/nginx.conf`, configOf(port))
  const args = ['-p', path, '-e', 'error.log', '-c', 'nginx.conf', '-g', 'daemon off;']
  const master = Bun.spawn([...pinned, 'nginx', ...args], { stdout: 'ignore', stderr: 'inherit' })
  const status = async (): Promise<string> =>
    await fetch(`http://127.0.0.1:${port}/status`).then(
      (response) => response.text(),
      () => '',
    )
  await until(async () => (await status()) !== '', 'nginx answers')
  const publication = masked(JSON.stringify(sample))
  let greeted = (): void => {}
  const isGreeted = new Promise<void>((resolve) => (greeted = resolve))
  const publisher = await Bun.connect({
    hostname: '127.0.0.1',
    port,
    socket: { data: () => greeted(), error() {} },
  })
  publisher.write(upgradeOf('/pub')(port))
  await isGreeted
  return {
    pid: master.pid,
    port,
    // No await: there is nothing to wait for, and all of them are in one packet.
    publish: async (count) =>
      void publisher.write(Buffer.concat(Array.from({ length: count }, () => publication))),
    subscribers: async () => Number(/subscribers: (\d+)/.exec(await status())?.[1]),
    stop() {
      master.kill()
      void master.exited.then(() => folder[Symbol.dispose]())
    },
  }
}
