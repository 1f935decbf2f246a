/** The life of a sandbox over the real Firecracker: asleep and awake again, as often as one likes, and copied. Each part ends with no trace of a microVM. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertNothingLeft, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { apiOf } from '../../apps/instavmd/test/api.ts';
import { follow, jails, POLL, START_MS, say, startNested, tellOnFailure, traces, visit } from './support.ts';

const SUSPENSIONS = 10;
/** Written over in place, so that a reader never finds it empty; seldom, for all guests here share one emulated processor. */
const COUNTER = 'i=0; while :; do printf "%08d\\n" $((i+=1)) 1<> /dev/shm/count; sleep 0.5; done';

let dataDirectory: string;
let daemon: TestDaemon;
let client: InstaVM;

beforeAll(async () => {
  dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
  daemon = await startNested(dataDirectory);
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
}, START_MS);
beforeEach(tellOnFailure(() => daemon));
afterAll(async () => {
  client?.close();
  await daemon?.stop();
  expect(await traces(dataDirectory)).toEqual([]);
  await assertNothingLeft(dataDirectory);
  await rm(dataDirectory, { recursive: true, force: true });
});

const count = async (of: Sandbox): Promise<number> => Number(await say(of, 'cat /dev/shm/count'));
const stateOf = async (of: Sandbox): Promise<string> => (await of.info()).state;

describe('a sandbox that sleeps', () => {
  it('loses no file, process or terminal in ten suspensions, and its clocks never go back', {
    timeout: 300_000,
  }, async () => {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    await say(sandbox, 'head -c 4M /dev/urandom > /dev/shm/memory; head -c 1M /dev/urandom > /root/disk');
    const sums = await say(sandbox, 'sha256sum /dev/shm/memory /root/disk | tee /root/sums');
    const counter = await sandbox.exec(COUNTER);
    counter.wait().catch(() => {});
    const pty = await sandbox.pty.create({ argv: ['cat'] });
    const screen = follow(pty);
    let [counted, uptime, clock] = [0, 0, 0];
    const incarnations = new Set<string | null>();
    for (let round = 0; round < SUSPENSIONS; round++) {
      await sandbox.suspend();
      expect(await traces(dataDirectory)).toEqual([]);
      // By turns a command wakes it, and somebody who types.
      const typed = pty.write(`round ${round}\n`);
      if (round % 2 === 0) await expect.poll(screen, POLL).toContain(`round ${round}\r\nround ${round}\r\n`);
      const now = await say(
        sandbox,
        'cat /dev/shm/count; cut -d. -f1 /proc/uptime; date +%s; sha256sum -c --quiet /root/sums',
      );
      const [counts = 0, up = 0, time = 0] = now.split('\n').map(Number);
      expect(Math.abs(time - Date.now() / 1000)).toBeLessThan(10);
      expect([counts >= counted, up >= uptime, time >= clock]).toEqual([true, true, true]);
      [counted, uptime, clock] = [counts, up, time];
      await typed;
      await expect.poll(screen, POLL).toContain(`round ${round}\r\nround ${round}\r\n`);
      incarnations.add((await sandbox.info()).incarnationId);
    }
    expect(incarnations.size).toBe(SUSPENSIONS);
    expect(await say(sandbox, 'cat /root/sums')).toBe(sums);
    await expect.poll(() => count(sandbox), POLL).toBeGreaterThan(counted);
    await pty.kill();
    await sandbox.delete();
    expect(await readdir(join(dataDirectory, 'snapshots'))).toEqual([]);
  });

  it('falls asleep when nobody uses it, and is woken by who opens a port of it', async () => {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600, idleSuspendSeconds: 4 });
    await sandbox.files.write('/root/www/index.html', 'awake', { parents: true });
    await say(sandbox, 'setsid python3 -m http.server -b 127.0.0.1 -d /root/www 3000 >/dev/null 2>&1 &');
    await expect.poll(() => sandbox.run('curl -sf http://127.0.0.1:3000/').then((ran) => ran.exitCode), POLL).toBe(0);
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    await expect.poll(() => stateOf(sandbox), POLL).toBe('suspended');
    expect(await traces(dataDirectory)).toEqual([]);
    expect(await visit(url, dataDirectory)).toEqual([200, 'awake']);
    await sandbox.delete();
  });

  it('tells a background execution that it was cut off, and lets the program itself go on', async () => {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    const api = apiOf(daemon);
    const command = `exec 2>&1; ${COUNTER}`;
    const asked = { session_id: sandbox.id, language: 'bash', command };
    const { task_id: task } = (await api.json('POST', '/execute_async', asked)).body;
    await expect.poll(() => sandbox.run('cat /dev/shm/count').then((ran) => ran.exitCode), POLL).toBe(0);
    await sandbox.suspend();
    const execution = async () => (await api.request('GET', `/v1/executions/${task}`)).body;
    await expect.poll(execution, POLL).toMatchObject({
      ...{ is_complete: true, exit_code: null },
      serialized_stderr: 'the sandbox is suspended: suspended by request',
    });
    const counted = await count(sandbox);
    await expect.poll(() => count(sandbox), POLL).toBeGreaterThan(counted);
    await sandbox.delete();
  });
});

describe('a sandbox that is copied', () => {
  it('goes on, and so do four copies that are made at once, each with an identity and randomness of its own', {
    timeout: 240_000,
  }, async () => {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    const counter = await sandbox.exec(COUNTER);
    counter.wait().catch(() => {});
    await say(sandbox, 'echo common > /dev/shm/common');
    const copies = await sandbox.forks(4);
    const all = [sandbox, ...copies];
    expect(await jails(dataDirectory)).toHaveLength(5);
    const ask = 'hostname; cat /etc/machine-id; od -An -tx1 -N16 /dev/urandom; cat /dev/shm/common';
    const told = await Promise.all(all.map(async (each) => (await say(each, ask)).split('\n')));
    for (const line of [0, 1, 2]) expect(new Set(told.map((lines) => lines[line])).size).toBe(5);
    expect(told.map((lines) => lines[3])).toEqual(all.map(() => 'common'));
    const counted = await Promise.all(all.map(count));
    for (const [at, each] of all.entries())
      await expect.poll(() => count(each), POLL).toBeGreaterThan(counted[at] ?? Number.NaN);
    await Promise.all(copies.map((copy) => copy.delete()));
    // One that sleeps is copied without waking.
    await sandbox.suspend();
    const copy = await sandbox.fork();
    expect([await stateOf(sandbox), await stateOf(copy)]).toEqual(['suspended', 'running']);
    expect(await say(copy, 'cat /dev/shm/common')).toBe('common');
    await Promise.all([sandbox.delete(), copy.delete()]);
    expect(await readdir(join(dataDirectory, 'snapshots'))).toEqual([]);
    expect(await traces(dataDirectory)).toEqual([]);
  });
});
