/** The daemon over the real Firecracker and jailer, once through what a sandbox offers, and what is left of it. Runs in the machine that scripts/nested makes. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Outside, SITE_CIDRS } from '../e2e/egress/outside.ts';
import { cgroups, firecracker } from '../life/firecracker.ts';
import { useDaemon, useDataDirectory } from '../life/host.ts';
import { follow, say, visit } from '../life/say.ts';

const POLL = firecracker.poll;
const own = useDataDirectory(firecracker);
let outside: Outside;
beforeAll(async () => {
  outside = await Outside.open();
});
afterAll(() => outside?.close());
const running = useDaemon(firecracker, own, async () => ({
  env: { INSTAVM_EGRESS_DNS: outside.dnsServer, INSTAVM_EGRESS_SITE_CIDRS: SITE_CIDRS },
}));
let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await running.client.sandboxes.create({ ttlSeconds: 3600 });
}, firecracker.poll.timeout);

describe('a sandbox under Firecracker', () => {
  it('runs commands and keeps files, in a jail whose cgroup is of this data directory', async () => {
    expect(await say(sandbox, 'id -un; pwd')).toBe('root\n/workspace');
    const bytes = Buffer.alloc(1_000_000, 'instavm!');
    await sandbox.files.write('/root/data', bytes);
    expect(Buffer.from(await sandbox.files.read('/root/data')).equals(bytes)).toBe(true);
    const { incarnationId } = await sandbox.info();
    const [parent = '', ...inside] = await cgroups();
    expect(inside).toEqual([`${parent}/${incarnationId?.replace('_', '-')}`]);
  });

  it('reaches what its policy allows, and nothing else', async () => {
    const nothing = { allowHttp: false, allowHttps: false, allowPackageManagers: false, allowedCidrs: [] };
    await sandbox.setEgressPolicy({ ...nothing, allowedDomains: ['allowed.test'] });
    expect(await say(sandbox, 'curl -sS -m 30 http://allowed.test/')).toBe('reached allowed.test');
    expect((await sandbox.run('curl -s -m 30 http://other.test/', { timeoutMs: 60_000 })).exitCode).not.toBe(0);
    const denied = expect.objectContaining({ host: 'other.test', allowed: false });
    await expect.poll(() => sandbox.egressLog(), POLL).toContainEqual(denied);
  });

  it('shows a port of it over TLS', async () => {
    await sandbox.files.write('/root/www/index.html', 'from the sandbox', { parents: true });
    await say(sandbox, 'setsid python3 -m http.server -b 127.0.0.1 -d /root/www 3000 >/dev/null 2>&1 &');
    await expect.poll(() => sandbox.run('curl -sf http://127.0.0.1:3000/').then((ran) => ran.exitCode), POLL).toBe(0);
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    expect(await visit(url, own.path)).toEqual([200, 'from the sandbox']);
  });
});

describe('a snapshot of it', () => {
  it('ends calls in flight by name; terminals, programs, clock and network go on', async () => {
    const pty = await sandbox.pty.create({ argv: ['bash', '--norc', '--noediting', '-i'] });
    const screen = follow(pty);
    await pty.write('secret=kept; echo typed-$secret\n');
    await expect.poll(screen, POLL).toContain('typed-kept');
    await say(sandbox, 'echo memory > /dev/shm/state');
    const inFlight = sandbox.run('echo begun > /dev/shm/begun; sleep 300', { timeoutMs: 200_000 });
    const ended = expect(inFlight).rejects.toMatchObject({ code: 'guest_lost' });
    await expect.poll(() => sandbox.run('cat /dev/shm/begun').then((ran) => ran.stdoutText), POLL).toBe('begun\n');

    const snapshot = await sandbox.snapshot('kept');
    await ended;
    expect((await sandbox.info()).state).toBe('running');
    await pty.write('echo still-$secret\n');
    await expect.poll(screen, POLL).toContain('still-kept');
    expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
    expect(Math.abs(Number(await say(sandbox, 'date +%s')) - Date.now() / 1000)).toBeLessThan(30);
    const reached = (): Promise<string> =>
      sandbox.run('curl -sS -m 10 http://allowed.test/', { timeoutMs: 60_000 }).then((ran) => ran.stdoutText);
    await expect.poll(reached, POLL).toBe('reached allowed.test');
    pty.detach();

    const clone = await running.client.sandboxes.create({ snapshotId: snapshot.id, ttlSeconds: 3600 });
    expect(await say(clone, 'cat /dev/shm/state; echo mine > /dev/shm/state')).toBe('memory');
    expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
    expect(await say(clone, 'curl -sS -m 30 http://allowed.test/')).toBe('reached allowed.test');
    await clone.delete();
    await running.client.snapshots.delete(snapshot.id);
    expect(await readdir(join(own.path, 'snapshots'))).toEqual([]);
  });
});
