/** What outlives the daemon, and what a suspension keeps: real microVMs, a daemon that is killed, clients that notice little. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertNothingLeft, startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Pty } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let dataDirectory: string;
beforeAll(async () => {
  dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-survival-'));
});
afterAll(async () => {
  await assertNothingLeft(dataDirectory);
  await rm(dataDirectory, { recursive: true, force: true });
});

const start = (env: Record<string, string> = {}): Promise<TestDaemon> =>
  startTestDaemon({ vmm: 'qemu', dataDirectory, env });
/** On the address of one before it, where clients come back to. */
const startAgain = (before: TestDaemon, env: Record<string, string> = {}): Promise<TestDaemon> =>
  start({ ...env, INSTAVM_LISTEN: new URL(before.baseUrl).host });
const clientOf = ({ apiKey, baseUrl }: TestDaemon): InstaVM => new InstaVM({ apiKey, baseUrl });
const microVms = async (): Promise<string[]> => (await readdir(join(dataDirectory, 'run'))).sort();

function follow(pty: Pty): { text(): string; readonly ended: Promise<void> } {
  let all = '';
  const ended = (async () => {
    for await (const chunk of pty.output) all += Buffer.from(chunk).toString();
  })();
  ended.catch(() => {});
  return { text: () => all, ended };
}

async function endVmm(incarnationId: string): Promise<void> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(`-name\0${incarnationId}\0`)) process.kill(Number(pid), 'SIGKILL');
  }
}

// Renamed into place, so that a reader never finds it empty.
const COUNTER = 'i=0; while :; do echo $((i+=1)) > /dev/shm/next; mv /dev/shm/next /dev/shm/count; sleep 0.02; done';

describe('a daemon that is killed', () => {
  it('is followed by one that goes on with the same microVMs, terminals and processes', {
    timeout: 400_000,
  }, async () => {
    const first = await start();
    const client = clientOf(first);
    const sandbox = await client.sandboxes.create({ ttlSeconds: 600 });
    const doomed = await client.sandboxes.create({ ttlSeconds: 600 });
    // Not in the background: it goes on although its client's connection does not.
    const exec = await sandbox.exec(COUNTER);
    const cutOff = expect(exec.wait()).rejects.toThrow();
    await expect.poll(() => sandbox.run('cat /dev/shm/count').then(({ exitCode }) => exitCode)).toBe(0);
    const pty = await sandbox.pty.create({ argv: ['bash', '--norc', '--noediting', '-i'] });
    const screen = follow(pty);
    await pty.write('secret=kept\n');
    await expect.poll(screen.text).toContain('secret=kept\r\n');
    const before = await sandbox.info();
    const count = Number((await sandbox.run('cat /dev/shm/count')).stdoutText);
    const running = await microVms();

    await first.crash();
    await cutOff;
    expect(await microVms()).toEqual(running);
    // Not everything survives: this one loses its VMM while nobody looks.
    await endVmm(running.find((name) => name !== before.incarnationId) ?? '');
    const second = await startAgain(first);

    expect(await microVms()).toEqual([before.incarnationId]);
    const after = await sandbox.info();
    expect(after).toMatchObject({ state: 'running', incarnationId: before.incarnationId });
    expect(after.expiresAt).toEqual(before.expiresAt);
    expect((await doomed.info()).state).toBe('failed');
    await expect.poll(async () => Number((await sandbox.run('cat /dev/shm/count')).stdoutText)).toBeGreaterThan(count);
    // The client's terminal has come back by itself, to the same shell.
    await pty.write('echo "still $secret"; exit 7\n');
    expect(await pty.wait()).toEqual({ exitCode: 7, signal: null });
    await screen.ended;
    expect(screen.text()).toContain('still kept');
    await sandbox.delete();
    expect(await microVms()).toEqual([]);
    client.close();
    await second.stop();
  });

  it('leaves what was suspended where it was; told to keep, it leaves what runs as well', {
    timeout: 400_000,
  }, async () => {
    const first = await start({ INSTAVM_ON_STOP: 'keep' });
    const client = clientOf(first);
    const [asleep, awake] = [await client.sandboxes.create(), await client.sandboxes.create()];
    for (const sandbox of [asleep, awake]) await sandbox.run('echo state > /dev/shm/state');
    await asleep.suspend();
    await first.crash();
    const second = await startAgain(first, { INSTAVM_ON_STOP: 'keep' });
    expect([(await asleep.info()).state, (await awake.info()).state]).toEqual(['suspended', 'running']);
    expect((await asleep.run('cat /dev/shm/state')).stdoutText).toBe('state\n');
    await asleep.suspend();
    const exec = await awake.exec(COUNTER);
    const cutOff = expect(exec.wait()).rejects.toThrow();
    await expect.poll(() => awake.run('cat /dev/shm/count').then(({ exitCode }) => exitCode)).toBe(0);
    // To its end: the next one waits for nobody.
    await second.stop();
    await cutOff;
    await expect(client.sandboxes.list()).rejects.toMatchObject({ code: 'connection_failed' });
    expect(await microVms()).toHaveLength(1);
    const third = await startAgain(first);
    expect((await awake.run('cat /dev/shm/state')).stdoutText).toBe('state\n');
    const count = Number((await awake.run('cat /dev/shm/count')).stdoutText);
    const counted = async (): Promise<number> => Number((await awake.run('cat /dev/shm/count')).stdoutText);
    await expect.poll(counted).toBeGreaterThan(count);
    await Promise.all([asleep.delete(), awake.delete()]);
    expect(await readdir(join(dataDirectory, 'snapshots'))).toEqual([]);
    client.close();
    await third.stop();
  });
});
