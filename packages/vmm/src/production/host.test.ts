import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { HostFiles, type HostFinding, isAtLeast, PRODUCTION_CHECKS } from './host.ts';

const directory = await mkdtemp(join(tmpdir(), 'instavm-host-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

type Files = Readonly<Record<string, string>>;

/** What a check finds on a host that has these files and no others. */
async function look(name: string, files: Files, modes: Readonly<Record<string, number>> = {}): Promise<HostFinding> {
  const root = await mkdtemp(join(directory, 'root-'));
  for (const [path, contents] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), `${contents}\n`);
  }
  for (const [path, mode] of Object.entries(modes)) await chmod(join(root, path), mode);
  const check = PRODUCTION_CHECKS.find((each) => each.name === name);
  if (check === undefined) throw new Error(`there is no check ${name}`);
  return check.look(new HostFiles(root));
}

const VULNERABILITIES = 'sys/devices/system/cpu/vulnerabilities';
const KVM = 'sys/module/kvm/parameters';
const SINCE_61 = { 'proc/sys/kernel/osrelease': '6.1.0-13-amd64' };
const MULTIHIT = `${VULNERABILITIES}/itlb_multihit`;

/** Name of the check; files where all is well; files where it is not; what is found then. */
const TABLE: readonly (readonly [string, Files, Files, RegExp])[] = [
  ['host kernel', SINCE_61, { 'proc/sys/kernel/osrelease': '4.19.0' }, /^4\.19\.0; .*5\.10/],
  ['cgroups', { 'sys/fs/cgroup/cgroup.controllers': 'cpu io memory pids' }, {}, /not v2/],
  [
    'CPU flaws',
    { [`${VULNERABILITIES}/mds`]: 'Not affected', [`${VULNERABILITIES}/srbds`]: 'Mitigation: Microcode' },
    { [`${VULNERABILITIES}/srbds`]: 'Vulnerable: No microcode', [MULTIHIT]: 'KVM: Vulnerable' },
    /itlb_multihit \(KVM: Vulnerable\); srbds/,
  ],
  ['KSM', { 'sys/kernel/mm/ksm/run': '0' }, { 'sys/kernel/mm/ksm/run': '1' }, /by timing/],
  ['SMT', { 'sys/devices/system/cpu/smt/active': '0' }, { 'sys/devices/system/cpu/smt/active': '1' }, /share a core/],
  [
    'Spectre v2',
    { [`${VULNERABILITIES}/spectre_v2`]: 'Mitigation: Enhanced IBRS; IBPB: conditional; RSB filling' },
    { [`${VULNERABILITIES}/spectre_v2`]: 'Mitigation: Retpolines; IBPB: disabled' },
    /no barrier/,
  ],
  [
    'L1TF',
    { [`${VULNERABILITIES}/l1tf`]: 'Mitigation: PTE Inversion; VMX: cache flushes, SMT disabled' },
    { [`${VULNERABILITIES}/l1tf`]: 'Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT disabled' },
    /not flushed before every entry/,
  ],
  [
    'store bypass',
    { [`${VULNERABILITIES}/spec_store_bypass`]: 'Mitigation: Speculative Store Bypass disabled via prctl and seccomp' },
    { [`${VULNERABILITIES}/spec_store_bypass`]: 'Mitigation: Speculative Store Bypass disabled via prctl' },
    /only for programs that ask/,
  ],
  [
    'swap',
    { 'proc/swaps': 'Filename Type Size\n/dev/zram0 partition 100' },
    { 'proc/swaps': 'Filename Type Size\n/dev/zram0 partition 100\n/swapfile file 100' },
    /^on \/swapfile:/,
  ],
  [
    'core dumps',
    { 'proc/sys/kernel/core_pattern': 'core' },
    { 'proc/sys/kernel/core_pattern': '|/usr/lib/systemd/systemd-coredump %P' },
    /^go to \/usr\/lib\/systemd\/systemd-coredump:/,
  ],
  [
    'nested KVM',
    { 'sys/module/kvm_amd/parameters/nested': '0' },
    { 'sys/module/kvm_intel/parameters/nested': 'Y' },
    /on in kvm_intel/,
  ],
  [
    'cgroup moves',
    { ...SINCE_61, 'proc/self/mounts': 'cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,favordynmods 0 0' },
    { ...SINCE_61, 'proc/self/mounts': 'cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0' },
    /slow on this kernel/,
  ],
  [
    'nx_huge_pages',
    { ...SINCE_61, [`${KVM}/nx_huge_pages`]: 'auto', [MULTIHIT]: 'KVM: Mitigation: Split huge pages' },
    { ...SINCE_61, [`${KVM}/nx_huge_pages`]: 'N', [MULTIHIT]: 'Not affected' },
    /does not need it/,
  ],
  [
    'guest timers',
    { [`${KVM}/min_timer_period_us`]: '200' },
    { [`${KVM}/min_timer_period_us`]: '0' },
    /as many as a guest likes/,
  ],
  [
    'huge pages',
    { 'proc/meminfo': 'HugePages_Total:       0\nHugepagesize:       2048 kB' },
    { 'proc/meminfo': 'HugePages_Total:     512\nHugepagesize:       2048 kB' },
    /^1024 MiB are reserved/,
  ],
  [
    'THP',
    { 'sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never' },
    { 'sys/kernel/mm/transparent_hugepage/enabled': '[always] madvise never' },
    /^always:/,
  ],
  ['overcommit', { 'proc/sys/vm/overcommit_memory': '0' }, { 'proc/sys/vm/overcommit_memory': '2' }, /^strict:/],
  ['pid_max', { 'proc/sys/kernel/pid_max': '4194304' }, { 'proc/sys/kernel/pid_max': '32768' }, /some 3276 sandboxes/],
  ['max_map_count', { 'proc/sys/vm/max_map_count': '65530' }, { 'proc/sys/vm/max_map_count': '1000' }, /^1000, less/],
];

describe('what production asks of a host', () => {
  it.each(TABLE)('%s: it is well, or it is not and there is something to do', async (name, well, ill, why) => {
    expect(await look(name, well)).toEqual({ status: 'ok', found: expect.stringMatching(/./) });
    expect(await look(name, ill)).toEqual({
      status: 'warn',
      found: expect.stringMatching(why),
      fix: expect.stringMatching(/./),
    });
  });

  it('/dev/kvm: it is for its group, or for everybody', async () => {
    const files = { 'dev/kvm': '' };
    expect((await look('/dev/kvm', files, { 'dev/kvm': 0o660 })).status).toBe('ok');
    expect((await look('/dev/kvm', files, { 'dev/kvm': 0o666 })).found).toContain('every user');
    expect((await look('/dev/kvm', {})).status).toBe('n/a');
  });

  it('ECC memory: it is told where the kernel knows', async () => {
    expect((await look('ECC memory', { 'sys/devices/system/edac/mc/mc0/mc_name': 'x' })).status).toBe('ok');
    expect((await look('ECC memory', {})).status).toBe('n/a');
  });

  it('has a test for every check, and none of them fails on a host that tells nothing', async () => {
    const names = PRODUCTION_CHECKS.map(({ name }) => name);
    expect(names.sort()).toEqual([...TABLE.map(([name]) => name), '/dev/kvm', 'ECC memory'].sort());
    for (const name of names) expect((await look(name, {})).found).toMatch(/./);
  });
});

it.each([
  ['5.10.0-30-amd64', [5, 10], true],
  ['5.9.16', [5, 10], false],
  ['6.1.0-13-cloud-amd64', [5, 10], true],
  ['1.16.0', [1, 16, 1], false],
])('%s against %j: %s', (text, wanted, enough) => {
  expect(isAtLeast(text, wanted)).toBe(enough);
});
