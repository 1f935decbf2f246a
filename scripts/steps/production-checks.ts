/**
 * Which backend the daemon would take here, and what Firecracker's documentation asks of a host that runs strangers' code
 * (docs/prod-host-setup.md of Firecracker), as far as /proc and /sys tell. It matters where Firecracker runs the microVMs; elsewhere it is n/a.
 */
import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { locateGuestImages, MissingGuestImages } from '@instavm/images';
import { type FirecrackerVerdict, judgeFirecracker } from '@instavm/vmm/choice';
import type { Finding, HostCheck } from './host-checks.ts';
import type { Progress } from './report.ts';

const VULNERABILITIES = '/sys/devices/system/cpu/vulnerabilities';
/** The oldest kernel that Firecracker's releases are tested on. */
const OLDEST_KERNEL = [5, 10] as const;
/** From here on there is an open report of a hang after a pause under traffic (firecracker issue 6074). */
const HANGING = [1, 16, 1] as const;

type Location = { readonly cacheDirectory: string; readonly agentPath: string };

export function productionChecks(location: Location): readonly HostCheck[] {
  let verdict: Promise<FirecrackerVerdict> | undefined;
  const judged = (progress: Progress): Promise<FirecrackerVerdict> => {
    verdict ??= judge(location, progress);
    return verdict;
  };
  const production = (name: string, look: () => Promise<Finding>): HostCheck => ({
    name,
    run: async (progress) => {
      const [{ usable }, finding] = [await judged(progress), await look()];
      // What is not in use needs no remedy.
      return usable ? finding : { status: 'n/a', found: finding.found };
    },
  });
  return [
    { name: 'backend', run: async (progress) => backendFinding(await judged(progress)) },
    production('host kernel', checkKernel),
    production('SMT', checkSmt),
    production('KSM', checkKsm),
    production('swap', checkSwap),
    production('CPU flaws', checkVulnerabilities),
  ];
}

async function judge(location: Location, progress: Progress): Promise<FirecrackerVerdict> {
  const { env } = process;
  const images = await locateGuestImages(location).catch((error: unknown) => {
    if (error instanceof MissingGuestImages) return undefined;
    throw error;
  });
  if (images === undefined) return { usable: false, why: 'the guest images are not built', remedy: 'npm run setup' };
  const host = {
    images,
    binaries: {
      firecracker: env.INSTAVM_FIRECRACKER_BIN ?? 'firecracker',
      jailer: env.INSTAVM_JAILER_BIN ?? 'jailer',
    },
    cacheDirectory: location.cacheDirectory,
    dataDirectory: env.INSTAVM_DATA_DIR ?? join(homedir(), '.local', 'share', 'instavm'),
    probe: true,
  };
  return judgeFirecracker(host, progress);
}

export function backendFinding(verdict: FirecrackerVerdict): Finding {
  const found = verdict.usable
    ? `Firecracker ${verdict.version} with its jailer, if the daemon runs as this user`
    : `QEMU, and not Firecracker: ${verdict.why}`;
  if (!verdict.usable) return { status: 'warn', found, fix: verdict.remedy };
  return isAtLeast(verdict.version, HANGING)
    ? {
        status: 'warn',
        found: `${found}; this release may hang after a snapshot under traffic (firecracker issue 6074)`,
        fix: 'until that is closed, install a release before 1.16',
      }
    : { status: 'ok', found };
}

async function checkKernel(): Promise<Finding> {
  const release = await readFile('/proc/sys/kernel/osrelease', 'utf8').then((text) => text.trim());
  return isAtLeast(release, OLDEST_KERNEL)
    ? { status: 'ok', found: release }
    : { status: 'warn', found: `${release}; Firecracker is tested on 5.10 and newer`, fix: 'install a newer kernel' };
}

/** Two guests on one core see each other's traces in its caches. */
async function checkSmt(): Promise<Finding> {
  const active = await read('/sys/devices/system/cpu/smt/active');
  if (active === undefined) return { status: 'n/a', found: 'the kernel does not tell' };
  return active === '1'
    ? {
        status: 'warn',
        found: 'on: two sandboxes may share a core, and side channels cross it',
        fix: 'boot with nosmt, or: echo off | sudo tee /sys/devices/system/cpu/smt/control',
      }
    : { status: 'ok', found: 'off: no two sandboxes share a core at once' };
}

/** Merged pages tell by their speed what another guest has in memory. */
async function checkKsm(): Promise<Finding> {
  const run = await read('/sys/kernel/mm/ksm/run');
  if (run === undefined) return { status: 'ok', found: 'the kernel has none' };
  return run === '1'
    ? {
        status: 'warn',
        found: 'on: sandboxes can find out by timing which pages others have',
        fix: 'echo 0 | sudo tee /sys/kernel/mm/ksm/run',
      }
    : { status: 'ok', found: 'off: no page is shared between sandboxes by its contents' };
}

/** Jails may not swap; the rest of the host could still write guests' memory to a disk. */
async function checkSwap(): Promise<Finding> {
  const [, ...areas] = ((await read('/proc/swaps')) ?? '').split('\n');
  const names = areas.map((line) => line.split(/\s+/, 1)[0]).filter(Boolean);
  return names.length > 0
    ? {
        status: 'warn',
        found: `on ${names.join(', ')}: memory of sandboxes may stay on a disk after they ended`,
        fix: 'sudo swapoff -a, and remove it from /etc/fstab; or encrypt it',
      }
    : { status: 'ok', found: 'none: memory of sandboxes reaches no disk but by snapshots' };
}

async function checkVulnerabilities(): Promise<Finding> {
  const names = await readdir(VULNERABILITIES).catch(() => undefined);
  if (names === undefined) return { status: 'n/a', found: 'the kernel does not tell' };
  const open: string[] = [];
  for (const name of names) {
    const state = (await read(join(VULNERABILITIES, name))) ?? '';
    if (/vulnerable/i.test(state.replace(/not affected/i, ''))) open.push(`${name} (${state})`);
  }
  return open.length > 0
    ? {
        status: 'warn',
        found: `not mitigated: ${open.join('; ')}`,
        fix: 'install the microcode package of the processor and a newer kernel, and do not boot with mitigations=off',
      }
    : { status: 'ok', found: `all ${names.length} that the kernel knows are mitigated, or not of this processor` };
}

const read = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );

/** @param text a version, with whatever follows its numbers */
export function isAtLeast(text: string, wanted: readonly number[]): boolean {
  const found = (/^[\d.]+/.exec(text)?.[0] ?? '').split('.').map(Number);
  for (const [at, number] of wanted.entries()) {
    const difference = (found[at] ?? 0) - number;
    if (difference !== 0) return difference > 0;
  }
  return true;
}
