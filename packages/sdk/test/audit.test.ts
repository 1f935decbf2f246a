/** The audit trail through the client and the command line. */
import { execFile, spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { type AuditEvent, InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../../../apps/cli/bin/instavm');

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  env = {
    PATH: process.env.PATH,
    HOME: '/nonexistent',
    NODE_DISABLE_COMPILE_CACHE: '1',
    INSTAVM_BASE_URL: daemon.baseUrl,
  };
  env.INSTAVM_API_KEY = daemon.apiKey;
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create();
});
afterAll(async () => {
  client.close();
  await daemon.stop();
});

const all = async (events: AsyncIterable<AuditEvent>): Promise<AuditEvent[]> => {
  const found: AuditEvent[] = [];
  for await (const event of events) found.push(event);
  return found;
};

describe('the audit trail', () => {
  it('is iterated over all its pages, newest first', async () => {
    for (let count = 0; count < 130; count++) {
      const { id } = await client.keys.create({ name: `key ${count}` });
      await client.keys.revoke(id);
    }
    const events = await all(client.audit.events({ group: 'key' }));
    expect(events).toHaveLength(1 + 260);
    expect(events.map(({ details }) => details.name).slice(0, 3)).toEqual(['key 129', 'key 129', 'key 128']);
    const page = await client.audit.page({ type: 'key.revoked' }, { limit: 3 });
    expect(page.events.map(({ details }) => details.name)).toEqual(['key 129', 'key 128', 'key 127']);
    const next = await client.audit.page({ type: 'key.revoked' }, { limit: 1, cursor: page.nextCursor ?? '' });
    expect(next.events[0]?.details.name).toBe('key 126');
  });

  it('tells one event whole, and what types there are', async () => {
    const [newest] = await all(client.audit.events({ sandboxId: sandbox.id, type: 'sandbox.started' }));
    expect(newest).toMatchObject({
      ...{ group: 'sandbox', status: 'success', sandboxId: sandbox.id, error: null, sourceIp: '127.0.0.1' },
      actor: { type: 'api_key', name: daemon.apiKey.slice(0, 17) },
      resource: { type: 'sandbox', id: sandbox.id },
      at: expect.any(Date),
    });
    expect(await client.audit.get(newest?.id ?? '')).toEqual(newest);
    await expect(client.audit.get('evt_1000000')).rejects.toMatchObject({ code: 'event_not_found' });
    expect((await client.audit.catalog()).sandbox).toContain('sandbox.failed');
  });

  it('is followed until the iteration is ended', async () => {
    const { events } = await client.audit.page({}, { limit: 1 });
    const { id } = await client.keys.create({ name: 'followed' });
    await client.keys.revoke(id);
    const seen: string[] = [];
    for await (const event of client.audit.follow({ group: 'key' }, events[0]?.id))
      if (seen.push(event.type) === 2) break;
    expect(seen).toEqual(['key.created', 'key.revoked']);
  });
});

describe('instavm events', () => {
  const run = async (...args: string[]) => (await promisify(execFile)(INSTAVM, ['events', ...args], { env })).stdout;

  it('prints a table, oldest first, filtered as it is asked', async () => {
    const rows = (await run('--sandbox', sandbox.id)).trim().split('\n');
    expect(rows[0]).toMatch(/^TIME +ID +EVENT +STATUS +BY +WHAT +WHY$/);
    expect(rows.slice(1)).toEqual([
      expect.stringMatching(/Z {2}evt_\d+ +sandbox\.created +success +instavm_sk_\S+ +sandbox /),
      expect.stringMatching(/Z {2}evt_\d+ +sandbox\.started +success /),
    ]);
    expect((await run('--group', 'key', '--limit', '2')).trim().split('\n')).toHaveLength(3);
    expect((await run('--types')).split('\n')).toContain('  egress.denied');
  });

  it('prints an object a line, or one event whole', async () => {
    const [line = ''] = (await run('--type', 'sandbox.started', '--since', '1h', '--json')).split('\n');
    expect(JSON.parse(line)).toMatchObject({ type: 'sandbox.started', sandboxId: sandbox.id });
    expect(await run(JSON.parse(line).id)).toContain('"requestId"');
  });

  it('follows from where it began, and repeats nothing', async () => {
    const child = spawn(INSTAVM, ['events', '--follow', '--group', 'key', '--limit', '1', '--json'], { env });
    const ended = new Promise((done) => child.once('close', done));
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    const names = () =>
      out
        .split('\n')
        .filter(Boolean)
        .map((line) => [JSON.parse(line).type, JSON.parse(line).details.name]);
    try {
      await expect.poll(names).toHaveLength(1);
      await client.keys.create({ name: 'seen by the command line' });
      await expect.poll(names).toEqual([
        ['key.revoked', 'followed'],
        ['key.created', 'seen by the command line'],
      ]);
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  });
});
