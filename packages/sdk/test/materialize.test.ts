/** A manifest on its way into a sandbox, when the server takes no more of it. */
import { once } from 'node:events';
import { mkdtemp, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Entry, Manifest } from '@openai/agents-core/sandbox';
import { InstaVM } from 'instavm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { materializeEntries } from '../src/openai-agents/materialize.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const breaksOff: Answer = (request) => request.once('data', () => request.socket.destroy());
const refuses: Answer = (request, response) => {
  response.writeHead(413, { connection: 'close' }).end('{"code":"archive_limit","detail":"too much"}');
  response.once('finish', () => request.socket.destroy());
};

let server: Server;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-materialize-'));
});
afterEach(async () => {
  server.close();
  await rm(directory, { recursive: true });
});

const BIG = Buffer.alloc(8_000_000);
const MANY = Object.fromEntries(
  Array.from({ length: 60 }, (_, number): [string, Entry] => [
    `f${number}`,
    { type: 'file', content: BIG.subarray(0, 200_000) },
  ]),
);

async function materialize(answer: Answer, entries: Record<string, Entry>): Promise<void> {
  server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const manifest = new Manifest({ root: '/workspace', entries, extraPathGrants: [{ path: directory }] });
  const sandbox = new InstaVM({ apiKey: 'key', baseUrl }).sandboxes.attach('one');
  await materializeEntries(sandbox, manifest, manifest.validatedEntries(), undefined);
}

const openFiles = async (): Promise<string[]> =>
  Promise.all((await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));

describe('a manifest whose upload fails', () => {
  it.each([
    ['breaks off', breaksOff, 'connection_failed'],
    ['is refused', refuses, 'archive_limit'],
  ] as const)('because it %s is that failure, and ends nothing else', async (_, answer, code) => {
    await expect(materialize(answer, MANY)).rejects.toMatchObject({ code });
  });

  it.each([
    ['breaks off', breaksOff, 'connection_failed'],
    ['is refused', refuses, 'archive_limit'],
  ] as const)('because it %s leaves no local file open', async (_, answer, code) => {
    const src = join(directory, 'big');
    await writeFile(src, BIG);
    await expect(materialize(answer, { big: { type: 'local_file', src } })).rejects.toMatchObject({ code });
    await expect.poll(openFiles).not.toContain(src);
  });
});
