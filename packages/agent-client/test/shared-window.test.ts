/** What a guest may have on its way to the host, as a scripted guest is told. */
import { createServer, type ServerHttp2Session } from 'node:http2';
import { AgentClient } from '@instavm/agent-client';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { exchanged } from './exchanged.ts';

const DEADLINE_MS = 10_000;
const KIB = 1024;
const server = createServer({ maxSessionMemory: 1_000 });
let session: ServerHttp2Session | undefined;
let agent: AgentClient;
const paths: string[] = [];
server.on('session', (opened) => {
  session = opened;
});
server.on('sessionError', () => {});
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  paths.push(headers[':path'] ?? '');
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
});

beforeEach(async () => {
  agent = await AgentClient.open(await exchanged(server), DEADLINE_MS);
});
afterEach(() => agent.close());

const window = (): number => (session?.remoteSettings.initialWindowSize ?? 0) / KIB;
const becomes = (kib: number) => expect.poll(window).toBe(kib);

it('is a mebibyte for one transfer, and shared by several down to a quarter for each', async () => {
  const tunnels = [await agent.tunnel(80, { deadlineMs: DEADLINE_MS })];
  await becomes(1024);
  for (const kib of [512, 341.3330078125, 256, 256, 256]) {
    tunnels.push(await agent.tunnel(80, { deadlineMs: DEADLINE_MS }));
    await becomes(kib);
  }
  for (const tunnel of tunnels.splice(1)) tunnel.destroy();
  await becomes(1024);
});

it('counts files and commands, and no terminal, which acknowledges what it has', async () => {
  const ended = new AbortController();
  const { signal } = ended;
  async function* unending() {
    yield {};
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
  const drain = async (messages: AsyncIterable<unknown>): Promise<void> => {
    for await (const _ of messages);
  };
  const calls: Promise<void>[] = [];
  for (const [open, kib] of [
    [() => agent.pty.attach(unending(), { signal }), 1024],
    [() => agent.files.read({}, { signal }), 1024],
    [() => agent.pty.attach(unending(), { signal }), 1024],
    [() => agent.exec.run(unending(), { signal }), 512],
    [() => agent.files.tarOut({}, { signal }), 341.3330078125],
    [() => agent.exec.runPython({}, { signal }), 256],
  ] as const) {
    const before = paths.length;
    calls.push(drain(open()));
    await expect.poll(() => paths.length).toBe(before + 1);
    await becomes(kib);
  }
  ended.abort();
  await Promise.allSettled(calls);
  await becomes(1024);
});

it('follows what changes faster than the guest confirms it', async () => {
  const open = () => agent.tunnel(80, { deadlineMs: DEADLINE_MS });
  for (let round = 0; round < 20; round++) {
    const tunnels = await Promise.all(Array.from({ length: 30 }, open));
    for (const tunnel of tunnels) tunnel.destroy();
  }
  await becomes(1024);
  expect((await open()).readable).toBe(true);
});
