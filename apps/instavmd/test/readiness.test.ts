/** What the daemon says of itself to load balancers and to systemd. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DEFAULT_SIZE, Templates } from '@instavm/core';
import { openDatabase } from '@instavm/store';
import { startTestDaemon } from '@instavm/testing';
import { createFakeVmm, fakeImages } from '@instavm/vmm/fake';
import { describe, expect, it } from 'vitest';
import { Readiness } from '../src/operations/readiness.ts';

describe('readiness', () => {
  const setUp = async () => {
    const database = await openDatabase(':memory:');
    const vmm = createFakeVmm();
    const templates = new Templates(vmm, fakeImages, () => {});
    return { database, templates, readiness: new Readiness({ database, vmm, templates }) };
  };

  it('holds when the store answers and the template is there', async () => {
    const { database, templates, readiness } = await setUp();
    await templates.get(DEFAULT_SIZE);
    expect(await readiness.check()).toMatchObject({
      daemon: { ok: true },
      store: { ok: true, schema: expect.stringMatching(/^\d{4}_/) },
      vmm: { ok: true, backend: 'fake' },
      template: { ok: true, ...DEFAULT_SIZE },
    });
    await database.destroy();
  });

  it('names what is missing, and says what else holds', async () => {
    const { database, readiness } = await setUp();
    const parts = { store: { ok: true }, template: { ok: false, why: expect.stringContaining('template') } };
    await expect(readiness.check()).rejects.toMatchObject({ code: 'template_missing', details: { parts } });
    await database.destroy();
  });

  it('does not tell strangers why the store cannot be used', async () => {
    const { database, templates, readiness } = await setUp();
    await templates.get(DEFAULT_SIZE);
    await database.destroy();
    await expect(readiness.check()).rejects.toMatchObject({
      code: 'store_unavailable',
      message: 'not ready: the database cannot be read',
    });
  });

  it('ends when the daemon begins to stop', async () => {
    const { database, templates, readiness } = await setUp();
    await templates.get(DEFAULT_SIZE);
    await readiness.check();
    readiness.stopping();
    await expect(readiness.check()).rejects.toMatchObject({ code: 'shutting_down', status: 503 });
    await database.destroy();
  });
});

/** A service manager's socket: what arrives there, line by line. A descriptor that comes along is closed, for which its sender waits (BARRIER=1). */
const RECEIVER = `
import array, os, socket, sys
at = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
at.bind(sys.argv[1])
print("bound", flush=True)
while True:
    data, ancillary, flags, _ = at.recvmsg(4096, socket.CMSG_SPACE(4 * 8))
    for _, _, fds in ancillary:
        for fd in array.array("i", fds):
            os.close(fd)
    for line in data.decode().splitlines():
        print(line, flush=True)
`;

const canNotify = spawnSync('systemd-notify', ['--version']).status === 0;
if (!canNotify)
  console.warn('Tests of the service manager are skipped: systemd-notify (Debian: systemd) cannot be run');

describe.skipIf(!canNotify)('under a service manager', () => {
  it('says that it is ready once it listens, that it lives, and that it stops', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'instavm-notify-test-'));
    const path = join(directory, 'notify');
    const receiver = spawn('python3', ['-u', '-c', RECEIVER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const heard: string[] = [];
    createInterface({ input: receiver.stdout }).on('line', (line) => heard.push(line));
    await expect.poll(() => heard).toContain('bound');
    const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '400000' };
    const daemon = await startTestDaemon({ vmm: 'fake', env });
    for (const line of ['READY=1', `STATUS=listening on ${daemon.baseUrl}`])
      await expect.poll(() => heard).toContain(line);
    await expect.poll(() => heard.filter((line) => line === 'WATCHDOG=1').length).toBeGreaterThan(1);
    const answer = await fetch(`${daemon.baseUrl}/readyz`);
    expect([answer.status, ((await answer.json()) as { status: string }).status]).toEqual([200, 'ready']);
    await daemon.stop();
    await expect.poll(() => heard).toContain('STOPPING=1');
    const ended = once(receiver, 'exit');
    receiver.kill();
    await ended;
    await rm(directory, { recursive: true, force: true });
  });
});
