/** Connections to the Unix sockets that VMMs open in their directories. */

import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

/** `sockaddr_un.sun_path` less its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

/** @returns undefined when nothing listens there; the caller knows when to give up */
export async function tryConnect(directory: string, name: string): Promise<Socket | undefined> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return connected(path);
  // Through an open descriptor of the directory when the directory's own path is too long.
  const handle = await open(directory, 'r').catch(() => undefined);
  if (handle === undefined) return undefined;
  return connected(`/proc/self/fd/${handle.fd}/${name}`).finally(() => handle.close());
}

/** Listens where a VMM connects. */
export async function listenIn(directory: string, name: string): Promise<Server> {
  const server = createServer();
  const listening = once(server, 'listening');
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) {
    server.listen(path);
  } else {
    const handle = await open(directory, 'r');
    server.listen(`/proc/self/fd/${handle.fd}/${name}`).once('close', () => handle.close());
  }
  await listening;
  return server;
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    // For as long as it lives: whoever gets it listens a moment later, and an error that nobody hears ends the process.
    socket.on('error', () => resolve(undefined));
    socket.once('connect', () => resolve(socket));
  });
}
