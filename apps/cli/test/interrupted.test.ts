/** The command line interrupted while the server makes something for it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { INSTAVM, PATIENCE } from './command-line.ts';

const ID = '00000000-0000-4000-8000-000000000000';

it.each([
  ['new', ['new'], ['DELETE /v2/sandboxes/a']],
  ['clone', ['clone', ID, '-n', '2'], ['DELETE /v2/sandboxes/a', 'DELETE /v2/sandboxes/b']],
])('%s, interrupted, ends what it had asked for, and says nothing of it', PATIENCE, async (_, args, undone) => {
  const requests: string[] = [];
  const asked = Promise.withResolvers<void>();
  const mayAnswer = Promise.withResolvers<void>();
  const server = createServer(async (request, response) => {
    requests.push(`${request.method} ${request.url}`);
    asked.resolve();
    await mayAnswer.promise;
    response.end('{"id":"a","sandboxes":[{"id":"a"},{"id":"b"}]}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const env = { PATH: process.env.PATH, HOME: '/nonexistent', INSTAVM_BASE_URL: url, INSTAVM_API_KEY: 'k' };
  const child = spawn(INSTAVM, args, { env, stdio: ['ignore', 'pipe', 'ignore'] });
  let said = '';
  child.stdout.on('data', (piece) => {
    said += piece;
  });
  const ended = once(child, 'close');
  await asked.promise;
  child.kill('SIGINT');
  // The signal is there before the answer, which takes longer than that.
  setTimeout(mayAnswer.resolve, 1_000);
  expect([await ended, said]).toEqual([[130, null], '']);
  expect(requests.slice(1).sort()).toEqual(undone);
  server.close();
});
