/** Over real microVMs: memory that comes back, and sandboxes that outlive their daemon, killed at any step. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { STEPS } from '@instavm/core';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf, ExecSocket } from './api.ts';
import { crashAndRecover } from './crash-matrix.ts';
import { PtySocket } from './pty-socket.ts';

/** Counts as long as it runs, so that a gap or a restart shows. Written over in place, so that a reader never finds it empty. */
const COUNTER =
  'nohup sh -c "i=0; while :; do i=\\$((i+1)); printf %08d \\$i 1<> /workspace/count; sleep 0.1; done" >/dev/null 2>&1 &';

const python = (api: Api, id: string, code: string) =>
  api.json('POST', '/execute', { session_id: id, command: code, language: 'python' });
const count = async (api: Api, id: string): Promise<number> =>
  Number((await api.execute(id, 'cat /workspace/count')).body.stdout);

describe('the memory of a sandbox', () => {
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'qemu' });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());

  it('comes back from suspension: processes, variables, terminals, files, and the time of now', async () => {
    const { body } = await api.json('POST', '/v2/sandboxes', { ttl_seconds: 3600 });
    const { id } = body;
    await api.execute(id, COUNTER);
    await api.execute(id, 'head -c 20000000 /dev/urandom > data; sha256sum data > sum');
    await python(api, id, 'x = 41');
    await api.json('POST', `/v1/sessions/${id}/pty/sessions`, { id: 'p', shell: '/bin/bash' });
    const before = new PtySocket(api, id, 'p');
    await before.opened();
    before.type('marker=still-here; echo typed-$marker\n');
    await expect.poll(() => before.text).toContain('typed-still-here');
    const counted = await count(api, id);
    // Its viewer stays, and wakes it by typing.
    await api.json('POST', `/v2/sandboxes/${id}/suspend`, {});
    expect((await api.request('GET', `/v2/sandboxes/${id}`)).body.state).toBe('suspended');
    before.type('echo woke-$marker\n');
    await expect.poll(() => before.text).toContain('woke-still-here');
    before.leave();

    for (let cycle = 0; cycle < 3; cycle++) {
      const suspended = await api.json('POST', `/v2/sandboxes/${id}/suspend`, {});
      expect([suspended.status, suspended.body.state, suspended.body.detail]).toEqual([200, 'suspended', undefined]);
      expect(await readdir(join(daemon.dataDirectory, 'run'))).toEqual([]);
      const woken = await api.execute(id, 'sha256sum -c sum; date +%s');
      expect(woken.body.stdout).toContain('data: OK');
      expect(Math.abs(Number(woken.body.stdout.trim().split('\n').at(-1)) - Date.now() / 1000)).toBeLessThan(10);
    }
    expect((await python(api, id, 'print(x + 1)')).body.stdout).toBe('42\n');
    const after = new PtySocket(api, id, 'p');
    await after.opened();
    await expect.poll(() => after.text).toContain('typed-still-here');
    after.type('echo again-$marker\n');
    await expect.poll(() => after.text).toContain('again-still-here');
    after.leave();
    await expect.poll(() => count(api, id)).toBeGreaterThan(counted + 3);
    await api.request('DELETE', `/v2/sandboxes/${id}`);
    expect(await readdir(join(daemon.dataDirectory, 'snapshots'))).toEqual([]);
  });

  it('is saved under a running command that does not notice', async () => {
    const { body } = await api.json('POST', '/v2/sandboxes', { ttl_seconds: 3600 });
    const exec = new ExecSocket(api, body.id);
    await exec.start({ script: 'for i in $(seq 30); do echo $i; sleep 0.1; done; exit 3' });
    await expect.poll(() => exec.stdout.toString()).toContain('2\n');
    const taken = await api.json('POST', `/v2/sandboxes/${body.id}/snapshots`, {});
    expect([taken.status, taken.body.status]).toEqual([201, 'ready']);
    expect(await exec.last()).toMatchObject({ type: 'exit', exit_code: 3 });
    expect(exec.stdout.toString()).toBe(Array.from({ length: 30 }, (_, at) => `${at + 1}\n`).join(''));
    const now = Number((await api.execute(body.id, 'date +%s')).body.stdout);
    expect(Math.abs(now - Date.now() / 1000)).toBeLessThan(10);
    await api.request('DELETE', `/v2/snapshots/${taken.body.id}`);
    await api.request('DELETE', `/v2/sandboxes/${body.id}`);
  });
});

describe('a sandbox', () => {
  it.each(['killed', 'stopped'] as const)('outlives a daemon that is %s, with what runs in it', async (how) => {
    const dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-survival-test-'));
    const env = { INSTAVM_ON_STOP: 'keep' };
    const first = await startTestDaemon({ vmm: 'qemu', dataDirectory, env });
    const { body: made } = await apiOf(first).json('POST', '/v2/sandboxes', { ttl_seconds: 3600, env: { WHO: 'me' } });
    await apiOf(first).execute(made.id, COUNTER);
    await apiOf(first).json('POST', `/v1/sessions/${made.id}/pty/sessions`, { id: 'p', shell: '/bin/bash' });
    const exec = new ExecSocket(apiOf(first), made.id);
    await exec.start({ argv: ['sleep', '600'] });
    await expect.poll(() => exec.frames.length).toBe(1);
    const counted = await count(apiOf(first), made.id);
    await (how === 'killed' ? first.crash() : first.stop());
    // The client of a streaming exec is told, and not that the command ended.
    expect(await exec.closed).not.toBe(1000);
    expect(exec.frames.at(-1)?.type).not.toBe('exit');

    const second = await startTestDaemon({ vmm: 'qemu', dataDirectory });
    const api = apiOf(second);
    const found = (await api.request('GET', `/v2/sandboxes/${made.id}`)).body;
    expect(found).toMatchObject({ state: 'running', incarnation_id: made.incarnation_id, expires_at: made.expires_at });
    expect((await api.execute(made.id, 'echo $WHO')).body.stdout).toBe('me\n');
    await expect.poll(() => count(api, made.id)).toBeGreaterThan(counted);
    const { body: pty } = await api.request('GET', `/v1/sessions/${made.id}/pty/sessions/p`);
    expect(pty).toMatchObject({ id: 'p', alive: true });
    // And it can be saved by the daemon that did not make it.
    expect((await api.json('POST', `/v2/sandboxes/${made.id}/suspend`, {})).body.state).toBe('suspended');
    expect(await count(api, made.id)).toBeGreaterThan(counted);
    await api.request('DELETE', `/v2/sandboxes/${made.id}`);
    await second.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  });
});

/** Steps at which it matters that microVMs outlive their daemon; the others have their test over the fake. */
const WITH_SURVIVORS = STEPS.filter(
  (step) => !/^(delete\.|end\.stopped|create\.recorded|suspend\.suspended)/.test(step),
);

describe('a daemon that is killed', () => {
  it.each(WITH_SURVIVORS)('at %s leaves nothing half-made to the next one', (step) =>
    crashAndRecover('qemu', step, true),
  );
});
