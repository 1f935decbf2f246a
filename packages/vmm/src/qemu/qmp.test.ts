/** Answers of a QEMU that a guest may have broken into. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { QmpClient } from './qmp.ts';

const server = createServer();
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-qmp-'));
  await once(server.listen(join(directory, 's')), 'listening');
});
afterEach(async () => {
  server.removeAllListeners('connection').close();
  await rm(directory, { recursive: true, force: true });
});

/** @param talk what the other side does */
const dial = async (talk: (socket: Socket) => void): Promise<Socket> => {
  server.once('connection', (socket) => talk(socket.on('error', () => {})));
  return connect(join(directory, 's'));
};
const OK = '{"return": {}}\n';

it('an answer may come in pieces, with a greeting before it and events between', async () => {
  const socket = await dial((other) => {
    other.write('{"QMP": {}}\n{"ret');
    other.once('data', () => other.write('urn": {}}\n{"event": "STOP"}\n'));
  });
  (await QmpClient.open(socket)).close();
});

it('vCPUs that may not go on yet are asked to until they may', async () => {
  let asked = 0;
  const refusal = '{"error": {"class": "GenericError", "desc": "Migration is not finalized yet"}}\n';
  const talk = (other: Socket): void =>
    void other.on('data', (text) => other.write(`${text}`.includes('cont"') && ++asked < 4 ? refusal : OK));
  const qmp = await QmpClient.open(await dial(talk));
  expect(await qmp.goOn(60_000)).toBe(true);
  expect(asked).toBe(4);
  asked = Number.NEGATIVE_INFINITY;
  expect(await qmp.goOn(50)).toBe(false);
  qmp.close();
});

it('whatever comes in place of an answer, the call fails by its name, and the connection is closed', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      const socket = await dial((other) => other.end(Buffer.concat([bytes, Buffer.from('\n{"return"\n')])));
      await expect(QmpClient.open(socket, 60_000)).rejects.toMatchObject({ code: 'internal' });
      expect(socket.destroyed).toBe(true);
    }),
    { numRuns: 50 },
  );
});

it('a line without an end is not kept', async () => {
  const socket = await dial((other) => {
    const more = (): void => void (other.write('x'.repeat(64 * 1024)) ? setImmediate(more) : other.once('drain', more));
    more();
  });
  await expect(QmpClient.open(socket)).rejects.toMatchObject({ code: 'internal' });
});

it('an answer that does not come is not waited for', async () => {
  const socket = await dial((other) => other.once('data', () => other.write(OK)));
  const qmp = await QmpClient.open(socket, 1_000);
  await expect(qmp.run('cont')).rejects.toThrow('cont');
  expect(socket.destroyed).toBe(true);
});
