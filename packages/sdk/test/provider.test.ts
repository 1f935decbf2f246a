/** Sessions of the Agents SDK provider when two things are done at once, or one of them fails. In a real microVM: provider.vm.test.ts. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { setTraceProcessors } from '@openai/agents';
import { Manifest } from '@openai/agents/sandbox';
import { InstaVM } from 'instavm';
import { InstaVMSandboxClient, InstaVMSandboxSession } from 'instavm/openai-agents';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { snapshotReference } from '../src/openai-agents/snapshot-reference.ts';

setTraceProcessors([]);

describe('commands of a session', () => {
  let daemon: TestDaemon;
  let session: InstaVMSandboxSession;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    session = await new InstaVMSandboxClient({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl }).create();
  });
  afterAll(async () => {
    await session.close();
    await daemon.stop();
  });

  it.each([true, false])('are ended by its stop while they are waited for (tty: %s)', async (tty) => {
    // The fake guest's processes are this machine's: no other sleeps for so long.
    const program = `sleep ${randomInt(1e6, 1e9)}`;
    const command = session.exec({ cmd: `touch begun; exec ${program}`, tty, yieldTimeMs: 30_000 });
    const leftRunning = command.then(
      ({ sessionId }) => sessionId !== undefined,
      () => false,
    );
    await expect.poll(() => session.pathExists('begun')).toBe(true);
    await session.sandbox.files.remove('/workspace/begun');
    await session.stop();
    expect(await leftRunning).toBe(false);
    await expect.poll(async () => (await session.sandbox.run(['pgrep', '-fx', program])).exitCode).toBe(1);
  });
});

describe('a session', () => {
  let server: Server;
  let requests: string[];
  let answer: (request: IncomingMessage) => number | Promise<number>;
  let session: InstaVMSandboxSession;
  beforeEach(async () => {
    requests = [];
    server = createServer(async (request, response) => {
      requests.push(`${request.method} ${request.url}`);
      response.writeHead(await answer(request)).end('{"id":"restored","code":"internal"}');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = new InstaVM({ apiKey: 'k', baseUrl });
    const state = { manifest: new Manifest({}), environment: {}, sandboxId: 'first', baseUrl, options: {} };
    session = new InstaVMSandboxSession(client.sandboxes.attach('first'), state, (snapshotId) =>
      client.sandboxes.create({ snapshotId }),
    );
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  it('that could not be ended is ended by the next attempt', async () => {
    answer = () => (requests.length === 1 ? 503 : 200);
    await expect(session.delete()).rejects.toThrow('InstaVM');
    await session.delete();
    await session.close();
    expect(requests).toEqual(['DELETE /v2/sandboxes/first', 'DELETE /v2/sandboxes/first']);
  });

  it('that is ended while a snapshot is being restored leaves no sandbox', async () => {
    const ended = Promise.withResolvers<void>();
    answer = async ({ method }) => {
      if (method === 'POST') await ended.promise;
      return 200;
    };
    const restoring = session.hydrateWorkspace(snapshotReference('snap'));
    await expect.poll(() => requests).toEqual(['POST /v2/sandboxes']);
    await session.delete();
    ended.resolve();
    await expect(restoring).rejects.toThrow('was ended while');
    expect(requests).toContain('DELETE /v2/sandboxes/restored');
  });
});
