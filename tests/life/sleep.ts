/** A sandbox asleep and awake again, as often as one likes, and copied. Between its lives there is no trace of a microVM. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { apiOf } from '../../apps/instavmd/test/api.ts';
import { type Host, useDaemon, useDataDirectory } from './host.ts';
import { COUNTER, count, follow, say, stateOf, visit } from './say.ts';

export type SleepOptions = { readonly suspensions: number; readonly diskMib: number };

export function describeSleep(host: Host, { suspensions, diskMib }: SleepOptions): void {
  const own = useDataDirectory(host);
  const running = useDaemon(host, own);
  const POLL = host.poll;
  const saved = (): Promise<string[]> => readdir(join(own.path, 'snapshots'));

  describe('a sandbox that sleeps', () => {
    it('loses no file, process or terminal however often it does, and its clocks never go back', {
      timeout: host.longMs,
    }, async () => {
      const sandbox = await running.client.sandboxes.create({ ttlSeconds: 3600 });
      const fill = `mkdir tree; for n in $(seq 20); do head -c ${diskMib * 50}K /dev/urandom > tree/$n; done`;
      await say(sandbox, `head -c 4M /dev/urandom > /dev/shm/memory; ${fill}; sha256sum tree/* > tree/sums`);
      const sums = await say(sandbox, 'sha256sum /dev/shm/memory tree/sums | tee sums');
      const counter = await sandbox.exec(COUNTER);
      counter.wait().catch(() => {});
      const pty = await sandbox.pty.create({ argv: ['cat'] });
      const screen = follow(pty);
      let [counted, uptime, clock] = [0, 0, 0];
      const incarnations = new Set<string | null>();
      for (let round = 0; round < suspensions; round++) {
        await sandbox.suspend();
        expect(await host.traces(own.path)).toEqual([]);
        // By turns a command wakes it, and somebody who types.
        const typed = pty.write(`round ${round}\n`);
        if (round % 2 === 0) await expect.poll(screen, POLL).toContain(`round ${round}\r\nround ${round}\r\n`);
        const askedAt = Date.now() / 1000;
        const now = await say(
          sandbox,
          'sha256sum -c --quiet sums; cat /dev/shm/count; cut -d. -f1 /proc/uptime; date +%s',
        );
        const [counts = 0, up = 0, time = 0] = now.split('\n').map(Number);
        expect(time).toBeGreaterThan(askedAt - 10);
        expect(time).toBeLessThan(Date.now() / 1000 + 10);
        expect([counts >= counted, up >= uptime, time >= clock]).toEqual([true, true, true]);
        [counted, uptime, clock] = [counts, up, time];
        await typed;
        await expect.poll(screen, POLL).toContain(`round ${round}\r\nround ${round}\r\n`);
        incarnations.add((await sandbox.info()).incarnationId);
      }
      expect(incarnations.size).toBe(suspensions);
      expect(await say(sandbox, 'sha256sum -c --quiet tree/sums; cat sums')).toBe(sums);
      await expect.poll(() => count(sandbox), POLL).toBeGreaterThan(counted);
      await pty.kill();
      await sandbox.delete();
      expect(await saved()).toEqual([]);
    });

    it('falls asleep when nobody uses it, and is woken by who opens a port of it', async () => {
      const sandbox = await running.client.sandboxes.create({ ttlSeconds: 3600, idleSuspendSeconds: 4 });
      await sandbox.files.write('/root/www/index.html', 'awake', { parents: true });
      await say(sandbox, 'setsid python3 -m http.server -b 127.0.0.1 -d /root/www 3000 >/dev/null 2>&1 &');
      await expect.poll(() => sandbox.run('curl -sf http://127.0.0.1:3000/').then((ran) => ran.exitCode), POLL).toBe(0);
      const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
      await expect.poll(() => stateOf(sandbox), POLL).toBe('suspended');
      expect(await host.traces(own.path)).toEqual([]);
      expect(await visit(url, own.path)).toEqual([200, 'awake']);
      await sandbox.delete();
    });

    it('tells a background execution that it was cut off, and lets the program itself go on', async () => {
      const sandbox = await running.client.sandboxes.create({ ttlSeconds: 3600 });
      const api = apiOf(running.daemon);
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
      timeout: host.longMs,
    }, async () => {
      const sandbox = await running.client.sandboxes.create({ ttlSeconds: 3600 });
      const counter = await sandbox.exec(COUNTER);
      counter.wait().catch(() => {});
      await say(sandbox, 'echo common > /dev/shm/common');
      const copies = await sandbox.forks(4);
      const all = [sandbox, ...copies];
      expect(await host.homes(own.path)).toHaveLength(5);
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
      expect(await saved()).toEqual([]);
      expect(await host.traces(own.path)).toEqual([]);
    });
  });
}
