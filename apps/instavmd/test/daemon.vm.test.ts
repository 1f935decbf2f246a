/** The daemon over real microVMs: what hostile commands do, and what is left of it all. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf, ExecSocket, stream } from './api.ts';

describe('a daemon that must use Firecracker', () => {
  it('does not start without it, and says what is missing', async () => {
    const env = { INSTAVM_FIRECRACKER_BIN: '/nonexistent/firecracker' };
    const missing = process.getuid?.() === 0 ? 'there is no executable /nonexistent/firecracker' : 'needs root';
    await expect(startTestDaemon({ vmm: 'firecracker', env })).rejects.toThrow(
      new RegExp(`Firecracker cannot be used here: .*${missing}\n.+`),
    );
  });
});

describe('the daemon over QEMU', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'qemu' });
    api = apiOf(daemon);
    id = await api.createSession({ vm_lifetime_seconds: 3600, env: { GREETING: 'good day' } });
  });
  afterAll(() => daemon.stop());

  const rssKib = async (): Promise<number> => {
    return Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${daemon.pid}/status`, 'utf8'))?.[1]);
  };

  it('runs commands as root in /workspace with the environment of the session', async () => {
    const { body } = await api.execute(id, 'id -u; pwd; echo "$GREETING"; echo oops >&2; exit 5');
    expect(body).toMatchObject({ stdout: '0\n/workspace\ngood day\n', stderr: 'oops\n', exit_code: 5 });
  });

  it('keeps the variables of Python, and runs !commands', async () => {
    const python = (code: string) => api.json('POST', '/execute', { session_id: id, command: code });
    await python('import math; x = 20');
    expect((await python('print(x + 1)\n!echo shell')).body.stdout).toBe('21\nshell\n');
    const raised = (await python('1/0')).body;
    expect([raised.exit_code, raised.stderr]).toEqual([1, expect.stringContaining('ZeroDivisionError')]);
  });

  it('returns 20 MB of binary output exactly, and 100 MB of text whole', async () => {
    const written = await stream(api, id, { script: 'head -c 20000000 /dev/urandom > r; sha256sum < r; cat r >&2' });
    const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(written.stderr));
    expect(written.stdout.toString().slice(0, 64)).toBe(Buffer.from(digest).toString('hex'));
    const { body } = await api.execute(id, "head -c 100000000 /dev/zero | tr '\\0' y", { timeout: 100 });
    expect([body.exit_code, body.stdout.length]).toEqual([0, 100_000_000]);
  });

  it('loses no byte and no exit for a reader slower than the command', async () => {
    const exec = new ExecSocket(api, id);
    await exec.start({ script: 'head -c 12000000 /dev/zero; echo end >&2; exit 3' });
    exec.socket.pause();
    await sleep(4000);
    exec.socket.resume();
    expect(await exec.last()).toMatchObject({ type: 'exit', exit_code: 3 });
    expect([exec.stdout.length, exec.stderr.toString()]).toEqual([12_000_000, 'end\n']);
  });

  it('carries input and output at once without waiting for itself', async () => {
    const exec = new ExecSocket(api, id);
    await exec.start({ argv: ['cat'], stdin: true });
    exec.socket.pause();
    for (let time = 0; time < 12; time++) exec.send(Buffer.alloc(1_000_000, time));
    exec.send({ type: 'stdin_end' });
    await sleep(2000);
    exec.socket.resume();
    expect(await exec.last()).toMatchObject({ type: 'exit', exit_code: 0 });
    expect(exec.stdout).toHaveLength(12_000_000);
  });

  it.each([1, 3])('answers within a timeout of %i s for a command that ignores SIGTERM', async (timeout) => {
    const timed = async (command: string, fields: object = {}) => {
      const askedAt = performance.now();
      const { body } = await api.execute(id, command, fields);
      return { body, ms: performance.now() - askedAt };
    };
    // What a request costs on this machine now, beside what is waited for.
    const trip = Math.max((await timed('true')).ms, (await timed('true')).ms);
    const { body, ms } = await timed("trap '' TERM; echo before; sleep 60", { timeout });
    expect(ms).toBeLessThan(timeout * 1000 + 2 * trip);
    expect(body.exit_code).toBe(124);
    expect(body.execution_time).toBeLessThan(timeout);
    // Killed, which is not yet gone.
    await expect
      .poll(async () => (await api.execute(id, 'pgrep -xc sleep')).body.stdout.trim(), { timeout: 30_000 })
      .toBe('0');
  });

  it('stays reachable under a fork bomb, and after it', async () => {
    const bomb = api.execute(id, ':(){ :|:& };:; sleep 3', { timeout: 6 });
    await sleep(2000);
    const stats = await api.request('GET', `/v2/sandboxes/${id}/stats`);
    expect(stats.status).toBe(200);
    await bomb;
    await expect
      .poll(async () => (await api.execute(id, 'echo alive')).body.stdout, { timeout: 90_000 })
      .toBe('alive\n');
  });

  it('says when the disk of the sandbox is full, and works on when there is room again', async () => {
    const full = await api.createSession();
    await api.execute(full, 'fallocate -l 3700M /root/filler; dd if=/dev/zero of=/root/rest bs=1M; true', {
      timeout: 100,
    });
    const body = new Uint8Array(30_000_000);
    const answer = await api.request('PUT', `/v2/sandboxes/${full}/files?path=/root/more`, { body });
    expect([answer.status, answer.body.code]).toEqual([507, 'guest_disk_full']);
    expect((await api.execute(full, 'rm /root/filler /root/rest; ls /root/more')).body.exit_code).not.toBe(0);
    expect((await api.request('PUT', `/v2/sandboxes/${full}/files?path=/root/more`, { body })).status).toBe(200);
    await api.json('POST', '/kill', { session_id: full });
  });

  it('carries 100 MB up and down whole, in constant memory', async () => {
    const bytes = new Uint8Array(100_000_000).map((_, index) => index % 251);
    const before = await rssKib();
    const path = `/v2/sandboxes/${id}/files?path=/workspace/big`;
    expect((await api.request('PUT', path, { body: bytes })).body.size_bytes).toBe(bytes.length);
    const response = await fetch(daemon.baseUrl + path, { headers: { 'x-api-key': daemon.apiKey } });
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    expect((await rssKib()) - before).toBeLessThan(120_000);
  });

  it('keeps what leaves through links inside, and follows none out of where it may', async () => {
    await api.execute(id, 'ln -sfn / root-link; ln -sfn ../../../../etc/passwd up');
    for (const name of ['root-link/etc/passwd', 'up']) {
      const answer = await api.request('GET', `/v2/sandboxes/${id}/files?path=/workspace/${name}&within=/workspace`);
      expect([name, answer.status, answer.body.code]).toEqual([name, 403, 'path_escape']);
    }
  });

  it('has no way out', async () => {
    const { body } = await api.execute(id, 'curl -sS -m 5 http://1.1.1.1; curl -sS -m 5 http://example.com', {
      timeout: 20,
    });
    expect(body.exit_code).not.toBe(0);
    expect(body.stdout).toBe('');
  });

  it('tells when a guest ends under its command, and gives the session a fresh one', async () => {
    const mortal = await api.createSession();
    const running = api.execute(mortal, 'sleep 600');
    await expect.poll(async () => (await api.execute(mortal, 'pgrep -xc sleep')).body.stdout).toBe('1\n');
    api.execute(mortal, 'kill -9 1; echo c > /proc/sysrq-trigger').catch(() => {});
    const { status, body } = await running;
    expect([status, body.code]).toEqual([502, 'guest_lost']);
    expect((await api.execute(mortal, 'echo again')).body.stdout).toBe('again\n');
    await api.json('POST', '/kill', { session_id: mortal });
  });

  it('tells apart two who ask at once, two hundred times', async () => {
    const numbers = Array.from({ length: 200 }, (_, number) => number);
    for (let at = 0; at < numbers.length; at += 25) {
      const batch = numbers.slice(at, at + 25);
      const answers = await Promise.all(batch.map((number) => api.execute(id, `echo ${number}`)));
      expect(answers.map(({ body }) => body.stdout)).toEqual(batch.map((number) => `${number}\n`));
    }
  });

  it('gives every clone a clock, a name and randomness of its own', async () => {
    const ids = await Promise.all([1, 2, 3].map(() => api.createSession()));
    const askedAt = Date.now() / 1000;
    const ask =
      'date +%s; hostname; cat /etc/machine-id; head -c 16 /dev/urandom | xxd -p || od -An -tx1 -N16 /dev/urandom';
    const answers = await Promise.all(ids.map(async (each) => (await api.execute(each, ask)).body.stdout.split('\n')));
    for (const line of [1, 2, 3]) expect(new Set(answers.map((lines) => lines[line])).size).toBe(3);
    for (const [now] of answers) {
      expect(Number(now)).toBeGreaterThan(askedAt - 10);
      expect(Number(now)).toBeLessThan(Date.now() / 1000 + 10);
    }
    for (const each of ids) await api.json('POST', '/kill', { session_id: each });
  });

  it('makes twenty sandboxes at once, stays small, and leaves nothing of them', async () => {
    const made = await Promise.all(Array.from({ length: 20 }, () => api.json('POST', '/v2/sandboxes', {})));
    expect(made.map(({ status }) => status)).toEqual(Array(20).fill(201));
    const answers = await Promise.all(made.map(({ body }) => api.execute(body.id, 'echo up', { timeout: 100 })));
    expect(answers.map(({ body }) => body.stdout)).toEqual(Array(20).fill('up\n'));
    await Promise.all(made.map(({ body }) => api.request('DELETE', `/v2/sandboxes/${body.id}`)));
    expect(await readdir(join(daemon.dataDirectory, 'run'))).toHaveLength(1);
  });
});
