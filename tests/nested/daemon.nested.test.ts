/**
 * The daemon over the real Firecracker and jailer, once through what a sandbox offers, and what is left of it. It runs as operators run it: by
 * the systemd unit, whose hardening holds, in production mode. Runs in the machine that scripts/nested makes.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { assertNothingLeft } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Outside, SITE_CIDRS } from '../e2e/egress/outside.ts';
import { cgroups, firecracker } from '../life/firecracker.ts';
import { follow, say, visit } from '../life/say.ts';
import {
  apiKey,
  BASE_URL,
  DATA_DIRECTORY,
  install,
  journal,
  mainPid,
  processes,
  systemctl,
  uninstall,
  unitIs,
} from './installed.ts';

const { FIRECRACKER_BIN = '', JAILER_BIN = '' } = process.env;
const FLAWS = '/sys/devices/system/cpu/vulnerabilities';
const { poll: POLL, startMs: START_MS } = firecracker;
const START = { timeout: START_MS, interval: 500 };

let outside: Outside;
let client: InstaVM;
let sandbox: Sandbox;

beforeAll(async () => {
  outside = await Outside.open();
  // The processor is emulated, and its kernel told to mitigate nothing: production mode is not to hear of it.
  await promisify(execFile)('mount', ['-t', 'tmpfs', 'none', FLAWS]);
  await writeFile(join(FLAWS, 'meltdown'), 'Not affected\n');
  await install({
    ...{ production: 'on', firecracker_bin: FIRECRACKER_BIN, jailer_bin: JAILER_BIN, warm_pool: '0' },
    ...{ egress_dns: outside.dnsServer, egress_site_cidrs: SITE_CIDRS },
  });
});
afterAll(async () => {
  client?.close();
  await systemctl('stop');
  outside?.close();
  const state = await unitIs('ActiveState', 'Result');
  const left = [...(await firecracker.traces(DATA_DIRECTORY)), ...(await processes())];
  await assertNothingLeft(DATA_DIRECTORY);
  await uninstall();
  await promisify(execFile)('umount', [FLAWS]);
  expect([state, left]).toEqual([{ ActiveState: 'inactive', Result: 'success' }, []]);
});

describe('the installed daemon', () => {
  it('has started for systemd when it serves, and not before', { timeout: 2 * START_MS }, async () => {
    await systemctl('start', '--no-block');
    // systemd answers before it has begun.
    await expect.poll(() => unitIs('ActiveState'), POLL).not.toEqual({ ActiveState: 'inactive' });
    expect(await unitIs('ActiveState')).toEqual({ ActiveState: 'activating' });
    await expect(fetch(`${BASE_URL}/readyz`)).rejects.toThrow('fetch failed');
    await expect.poll(() => unitIs('ActiveState'), START).not.toEqual({ ActiveState: 'activating' });
    expect(await unitIs('ActiveState', 'StatusText')).toEqual({
      ActiveState: 'active',
      StatusText: `listening on ${BASE_URL}`,
    });
    expect((await fetch(`${BASE_URL}/readyz`)).status).toBe(200);
    client = new InstaVM({ apiKey: await apiKey(), baseUrl: BASE_URL });
    sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
  });

  it('cannot do more than it must, and writes the journal in JSON', async () => {
    const pid = await mainPid();
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    for (const line of ['NoNewPrivs:\t1', 'Seccomp:\t2', 'CapBnd:\t00000000092c05eb']) expect(status).toContain(line);
    const options = /^\S+ \S+ \S+ \/ \/ (\S+)/m.exec(await readFile(`/proc/${pid}/mountinfo`, 'utf8'))?.[1];
    expect(options).toMatch(/^ro,nosuid/);
    const messages = (await journal()).map((line) => JSON.parse(line).msg);
    expect(messages).toContain(`listening on ${BASE_URL}`);
  });
});
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

  it('has limits that systemd leaves alone, and none of the protection from want of memory that the daemon has', async () => {
    const [, own = ''] = await cgroups();
    const limit = (): Promise<string> => readFile(join('/sys/fs/cgroup', own, 'cpu.max'), 'utf8');
    const before = await limit();
    await systemctl('daemon-reload');
    expect([before, await limit()]).toEqual(['250000 100000\n', '250000 100000\n']);
    const spared = async (pid: number | undefined): Promise<number> =>
      Number(await readFile(`/proc/${pid}/oom_score_adj`, 'utf8'));
    expect([await spared(await mainPid()), await spared((await firecracker.vmms(DATA_DIRECTORY))[0])]).toEqual([
      -500, 0,
    ]);
  });

  it('reaches what its policy allows, and nothing else', async () => {
    const nothing = { allowHttp: false, allowHttps: false, allowPackageManagers: false, allowedCidrs: [] };
    await sandbox.setEgressPolicy({ ...nothing, allowedDomains: ['allowed.test'] });
    expect(await say(sandbox, 'curl -sS -m 150 http://allowed.test/')).toBe('reached allowed.test');
    expect((await sandbox.run('curl -s -m 150 http://other.test/', { timeoutMs: 200_000 })).exitCode).not.toBe(0);
    const denied = expect.objectContaining({ host: 'other.test', allowed: false });
    await expect.poll(() => sandbox.egressLog(), POLL).toContainEqual(denied);
  });

  it('shows a port of it over TLS', async () => {
    await sandbox.files.write('/root/www/index.html', 'from the sandbox', { parents: true });
    await say(sandbox, 'setsid python3 -m http.server -b 127.0.0.1 -d /root/www 3000 >/dev/null 2>&1 &');
    await expect.poll(() => sandbox.run('curl -sf http://127.0.0.1:3000/').then((ran) => ran.exitCode), POLL).toBe(0);
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    expect(await visit(url, DATA_DIRECTORY)).toEqual([200, 'from the sandbox']);
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
    const asked = Date.now() / 1000;
    const told = Number(await say(sandbox, 'date +%s'));
    expect([told > asked - 30, told < Date.now() / 1000 + 30]).toEqual([true, true]);
    const reached = (): Promise<string> =>
      sandbox.run('curl -sS -m 10 http://allowed.test/', { timeoutMs: 200_000 }).then((ran) => ran.stdoutText);
    await expect.poll(reached, POLL).toBe('reached allowed.test');
    pty.detach();

    const clone = await client.sandboxes.create({ snapshotId: snapshot.id, ttlSeconds: 3600 });
    expect(await say(clone, 'cat /dev/shm/state; echo mine > /dev/shm/state')).toBe('memory');
    expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
    expect(await say(clone, 'curl -sS -m 150 http://allowed.test/')).toBe('reached allowed.test');
    await clone.delete();
    await client.snapshots.delete(snapshot.id);
    expect(await readdir(join(DATA_DIRECTORY, 'snapshots'))).toEqual([]);
  });
});

describe('a sandbox of the unit', { timeout: 2 * START_MS }, () => {
  const isKept = async (): Promise<void> => expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');

  it('has a daemon that tells systemd that it lives', async () => {
    const livedFor = async (): Promise<number> => {
      const at = await unitIs('WatchdogTimestampMonotonic', 'ActiveEnterTimestampMonotonic');
      return (Number(at.WatchdogTimestampMonotonic) - Number(at.ActiveEnterTimestampMonotonic)) / 1e6;
    };
    await expect.poll(livedFor, START).toBeGreaterThan(25);
  });

  it('is there, as it runs, after "systemctl restart"', async () => {
    const pids = await firecracker.vmms(DATA_DIRECTORY);
    await systemctl('restart');
    expect(await firecracker.vmms(DATA_DIRECTORY)).toEqual(pids);
    await isKept();
  });

  it('is there when systemd has started another daemon for one that was killed', async () => {
    const killed = await mainPid();
    process.kill(killed, 'SIGKILL');
    const next = { ActiveState: 'active', NRestarts: '1' };
    await expect.poll(() => unitIs('ActiveState', 'NRestarts'), START).toEqual(next);
    expect(await mainPid()).not.toBe(killed);
    await isKept();
    await sandbox.delete();
  });
});
