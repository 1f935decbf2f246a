import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { FirecrackerVerdict } from '@instavm/vmm/choice';
import { HostFiles } from '@instavm/vmm/production';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { parseConfig } from '../src/config.ts';
import { checkProduction } from '../src/production.ts';

const FIT = {
  'proc/sys/kernel/osrelease': '6.1.0-13-amd64',
  'sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids',
  'sys/devices/system/cpu/vulnerabilities/meltdown': 'Not affected',
  'sys/devices/system/cpu/vulnerabilities/spectre_v2': 'Mitigation: Enhanced / Automatic IBRS; IBPB: conditional',
  'sys/kernel/mm/ksm/run': '0',
};
const USABLE: FirecrackerVerdict = {
  usable: true,
  binaries: { firecracker: '/usr/bin/firecracker', jailer: '/usr/bin/jailer' },
  version: '1.15.0',
};

const directory = await mkdtemp(join(tmpdir(), 'instavm-production-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A host with these files instead of, or beside, those of one that is fit. */
async function hostWith(files: Readonly<Record<string, string>>): Promise<HostFiles> {
  const root = await mkdtemp(join(directory, 'host-'));
  for (const [path, contents] of Object.entries({ ...FIT, ...files })) {
    if (contents === '') continue;
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), `${contents}\n`);
  }
  return new HostFiles(root);
}

const check = async (
  files: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>> = {},
  verdict: FirecrackerVerdict = USABLE,
): Promise<void> => checkProduction(parseConfig(env), await hostWith(files), async () => verdict);

describe('production mode', () => {
  it('starts on a fit host with Firecracker, its jailer and KVM', async () => {
    await check({});
    await check({}, { INSTAVM_VMM: 'firecracker', INSTAVM_ACCELERATOR: 'kvm' });
  });

  it.each([
    ['the QEMU backend', {}, { INSTAVM_VMM: 'qemu' }, /INSTAVM_VMM is qemu[\s\S]*→ Leave INSTAVM_VMM out/],
    ['the fake backend', {}, { INSTAVM_VMM: 'fake' }, /INSTAVM_VMM is fake: it runs no guest/],
    ['emulated guests', {}, { INSTAVM_ACCELERATOR: 'tcg' }, /INSTAVM_ACCELERATOR is tcg: emulated guests/],
    [
      'a host that does not tell of its processor’s flaws',
      {
        'sys/devices/system/cpu/vulnerabilities/meltdown': '',
        'sys/devices/system/cpu/vulnerabilities/spectre_v2': '',
      },
      {},
      /CPU flaws: the kernel does not tell[\s\S]*→ Start the daemon where/,
    ],
    [
      'an old kernel',
      { 'proc/sys/kernel/osrelease': '5.4.0' },
      {},
      /host kernel: 5\.4\.0[\s\S]*→ install a newer kernel/,
    ],
    ['cgroup v1', { 'sys/fs/cgroup/cgroup.controllers': '' }, {}, /cgroups: not v2[\s\S]*→ boot with systemd/],
    ['a missing controller', { 'sys/fs/cgroup/cgroup.controllers': 'cpu memory' }, {}, /cgroups: v2 without io, pids/],
    ['merged pages', { 'sys/kernel/mm/ksm/run': '1' }, {}, /KSM: on[\s\S]*→ echo 0/],
    [
      'a processor that leaks',
      { 'sys/devices/system/cpu/vulnerabilities/meltdown': 'Vulnerable' },
      {},
      /CPU flaws: not mitigated: meltdown \(Vulnerable\)[\s\S]*→ install the microcode/,
    ],
    [
      'threads of a core that leak',
      { 'sys/devices/system/cpu/vulnerabilities/mds': 'Mitigation: Clear CPU buffers; SMT vulnerable' },
      {},
      /CPU flaws: not mitigated: mds[\s\S]*→ boot with nosmt/,
    ],
  ] as const)('refuses %s, with cause and remedy', async (_, files, env, why) => {
    const refused = check(files as Readonly<Record<string, string>>, env);
    await expect(refused).rejects.toMatchObject({
      code: 'production_refused',
      message: expect.stringMatching(why),
      hint: expect.stringContaining('npm run doctor'),
    });
  });

  it.each([
    ['KVM', '/dev/kvm does not exist or cannot be opened', 'Use a host in which KVM runs guests.'],
    ['the jailer', 'there is no executable jailer', 'Install firecracker and jailer of one release.'],
    ['root', 'the jailer needs root', 'Run the daemon as root.'],
  ])('refuses a host without %s', async (_, why, remedy) => {
    await expect(check({}, {}, { usable: false, why, remedy })).rejects.toThrow(
      `Firecracker cannot be used here: ${why}\n    → ${remedy}`,
    );
  });

  it('names everything at once, and does not ask for KVM where a setting rules it out', async () => {
    const host = await hostWith({ 'sys/kernel/mm/ksm/run': '1' });
    const refused = checkProduction(parseConfig({ INSTAVM_VMM: 'qemu' }), host, () => {
      throw new Error('asked');
    });
    await expect(refused).rejects.toThrow(/INSTAVM_VMM is qemu[\s\S]*KSM: on/);
  });
});

describe('a daemon in production mode', () => {
  let data: string;
  beforeEach(async () => {
    data = await mkdtemp(join(directory, 'data-'));
  });

  it('ends at once where it may not start, says why and what to do, and leaves nothing that runs', async () => {
    const main = join(import.meta.dirname, '../src/main.mjs');
    const env = {
      ...{ PATH: process.env.PATH, HOME: data, INSTAVM_DATA_DIR: data, INSTAVM_LISTEN: '127.0.0.1:0' },
      ...{ INSTAVM_PRODUCTION: 'on', INSTAVM_VMM: 'fake', INSTAVM_PREVIEW_LISTEN: 'off' },
    };
    const child = spawn(process.execPath, ['--conditions=instavm-source', main], { env });
    const [said, [status]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    expect(status).toBe(78);
    expect(said).toMatch(/^instavmd: production mode does not start here:\n {2}INSTAVM_VMM is fake/m);
    expect(said).toContain('npm run doctor');
    expect((await readdir(data)).filter((name) => name === 'daemon.pid')).toEqual([]);
  });
});
