/**
 * The floor of open WebSockets: a process that shakes hands over Node's own TLS and does nothing more. It is forked with the daemon's flags, is sent a
 * key pair, and answers with its port.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';

/** RFC 6455 §1.3. */
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

type KeyPair = { readonly cert: string; readonly key: string };

export type BareListener = { readonly pid: number; readonly port: number; end(): Promise<void> };

export async function startBareListener({ cert, key }: KeyPair): Promise<BareListener> {
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), [], { execArgv: ['--max-semi-space-size=2'] });
  const ended = once(child, 'exit');
  child.send({ cert, key });
  const [port] = (await once(child, 'message')) as [number];
  const end = async (): Promise<void> => {
    child.kill();
    await ended;
  };
  return { pid: child.pid ?? 0, port, end };
}

function listen({ cert, key }: KeyPair): void {
  const server = createSecureServer({ cert, key, allowHTTP1: true, minVersion: 'TLSv1.2' });
  server.on('upgrade', (request, socket) => {
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}${WEBSOCKET_GUID}`)
      .digest('base64');
    const fields = ['Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`];
    socket.on('error', () => socket.destroy());
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`);
    socket.resume();
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
}

if (import.meta.main) process.once('message', listen);
