/**
 * What a host needs to run microVMs, each requirement with what was found and what to do about it. `fail` stops something
 * that the project promises; `warn` makes it slower or less safe.
 */
import { access, constants, readFile, statfs } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages, MissingGuestImages } from '@instavm/images';
import { probeKvm } from '@instavm/vmm/qemu';
import { DEBIAN_PACKAGES, missingPackages } from './debian-packages.ts';
import { productionChecks } from './production-checks.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

export type Finding = {
  /** `n/a`: it matters only with another backend. */
  readonly status: 'ok' | 'warn' | 'fail' | 'n/a';
  readonly found: string;
  /** What to type or change; absent when all is well. */
  readonly fix?: string;
};

export type HostCheck = { readonly name: string; readonly run: (progress: Progress) => Promise<Finding> };

const GIB = 1024 ** 3;
/** The base image while it is built (tree, file and apt's downloads), the Rust build and the Python environments. */
const DISK_NEEDED_BYTES = 6 * GIB;
/** The same with room for templates and the overlays of some twenty sandboxes. */
const DISK_COMFORTABLE_BYTES = 20 * GIB;
/** One template build and a few clones. */
const MEMORY_NEEDED_BYTES = 1.5 * GIB;
const MEMORY_COMFORTABLE_BYTES = 4 * GIB;
/** Each sandbox takes about a dozen descriptors of the daemon. */
const OPEN_FILES_COMFORTABLE = 4_096;

/** The one that the daemon would take. */
const QEMU = process.env.INSTAVM_QEMU_BIN ?? 'qemu-system-x86_64';

const location = { cacheDirectory: defaultCacheDirectory(process.env), agentPath: GUEST_AGENT_PATH };

export const HOST_CHECKS: readonly HostCheck[] = [
  { name: 'operating system', run: checkRelease },
  { name: 'processor', run: checkProcessor },
  { name: 'KVM', run: checkKvm },
  { name: 'cgroup v2', run: checkCgroups },
  { name: 'user namespaces', run: checkUserNamespaces },
  { name: 'open files', run: checkOpenFiles },
  { name: 'memory', run: checkMemory },
  { name: 'disk', run: checkDisk },
  { name: 'Node', run: checkNode },
  {
    name: 'Rust',
    run: () =>
      checkVersion('cargo', ['--version'], [1, 90], 'install or update it: https://rustup.rs, or rustup update'),
  },
  { name: 'Python', run: checkPython },
  { name: 'QEMU', run: () => checkVersion(QEMU, ['--version'], [7, 2], 'npm run setup') },
  { name: 'Debian packages', run: checkPackages },
  { name: 'guest images', run: checkImages },
  ...productionChecks(location),
];

async function checkRelease(): Promise<Finding> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const field = (name: string): string => new RegExp(`^${name}="?([^"\n]*)"?$`, 'm').exec(text)?.[1] ?? '';
  const found = field('PRETTY_NAME') || 'unknown';
  if (!(await onPath('apt-get'))) {
    return { status: 'fail', found: `${found}, without apt-get`, fix: 'setup installs Debian packages; use Debian 12' };
  }
  const tested = field('ID') === 'debian' && field('VERSION_ID') === '12';
  return tested ? { status: 'ok', found } : { status: 'warn', found, fix: 'only Debian 12 is tested' };
}

async function checkProcessor(): Promise<Finding> {
  const cpuinfo = await readFile('/proc/cpuinfo', 'utf8');
  const model = /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? 'unknown model';
  const found = `${availableParallelism()} × ${model}`;
  if (process.arch !== 'x64')
    return { status: 'fail', found: `${found} (${process.arch})`, fix: 'use an x86-64 machine' };
  return /^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo)
    ? { status: 'ok', found: `${found}, with hardware virtualisation` }
    : {
        status: 'warn',
        found: `${found}, no hardware virtualisation (vmx or svm)`,
        fix: 'enable it in the firmware, or nested virtualisation in the hypervisor; without it guests are emulated',
      };
}

async function checkKvm(progress: Progress): Promise<Finding> {
  const missing = await access('/dev/kvm', constants.F_OK).then(
    () => undefined,
    () => 'there is no /dev/kvm',
  );
  const emulated = 'guests are emulated: slow, and not a security boundary';
  if (missing) return { status: 'warn', found: `${missing}; ${emulated}`, fix: 'sudo modprobe kvm_intel, or kvm_amd' };
  const images = await locateGuestImages(location).catch((error: unknown) => {
    if (error instanceof MissingGuestImages) return undefined;
    throw error;
  });
  if (!images) {
    return {
      status: 'warn',
      found: '/dev/kvm exists; whether a guest runs in it was not tried',
      fix: 'npm run setup, then again',
    };
  }
  const verdict = await probeKvm(images, location.cacheDirectory, progress, QEMU);
  if (verdict.usable) return { status: 'ok', found: verdict.reason };
  const fix = verdict.reason.includes('group kvm')
    ? 'sudo usermod --append --groups kvm "$USER", then log in again'
    : 'use a host, or a kind of nested virtualisation, in which KVM guests run';
  return { status: 'warn', found: `${verdict.reason}; ${emulated}`, fix };
}

async function checkCgroups(): Promise<Finding> {
  const controllers = await readFile('/sys/fs/cgroup/cgroup.controllers', 'utf8').catch(() => undefined);
  if (controllers !== undefined) return { status: 'ok', found: controllers.trim() || 'unified, without controllers' };
  return {
    status: 'warn',
    found: 'not the only hierarchy at /sys/fs/cgroup; the jails of Firecracker need it',
    fix: 'boot with systemd.unified_cgroup_hierarchy=1',
  };
}

async function checkUserNamespaces(): Promise<Finding> {
  if (process.getuid?.() === 0) return { status: 'ok', found: 'not needed by root' };
  const works = await run('unshare', ['--map-auto', '--map-root-user', 'true']).then(
    () => true,
    () => false,
  );
  return works
    ? { status: 'ok', found: 'usable, with subordinate ids' }
    : {
        status: 'warn',
        found: 'not usable by this user; the base image cannot be built without root',
        fix: 'sudo apt-get install uidmap; sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"; sudo sysctl kernel.unprivileged_userns_clone=1',
      };
}

async function checkOpenFiles(): Promise<Finding> {
  const limits = await readFile('/proc/self/limits', 'utf8');
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? 'unknown';
  const enough = hard === 'unlimited' || Number(hard) >= OPEN_FILES_COMFORTABLE;
  return enough
    ? { status: 'ok', found: `at most ${hard}` }
    : {
        status: 'warn',
        found: `at most ${hard}`,
        fix: `raise the limit to ${OPEN_FILES_COMFORTABLE} (ulimit -Hn, limits.conf)`,
      };
}

async function checkMemory(): Promise<Finding> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const available = Number(/^MemAvailable:\s+(\d+)/m.exec(meminfo)?.[1] ?? 0) * 1024;
  return graded(
    available,
    MEMORY_NEEDED_BYTES,
    MEMORY_COMFORTABLE_BYTES,
    'end other programs, or use a larger machine',
  );
}

async function checkDisk(): Promise<Finding> {
  const { bavail, bsize } = await statfs(await nearestExisting(location.cacheDirectory));
  const built = await locateGuestImages(location).then(
    () => true,
    () => false,
  );
  const fix = `free some space, or point INSTAVM_CACHE_DIR at a larger disk (now ${location.cacheDirectory})`;
  return graded(bavail * bsize, built ? GIB : DISK_NEEDED_BYTES, DISK_COMFORTABLE_BYTES, fix);
}

function graded(available: number, needed: number, comfortable: number, fix: string): Finding {
  const found = `${(available / GIB).toFixed(1)} GiB available`;
  if (available >= comfortable) return { status: 'ok', found };
  const wanted = `${found}; ${(comfortable / GIB).toFixed(0)} GiB are comfortable`;
  return { status: available >= needed ? 'warn' : 'fail', found: wanted, fix };
}

/** The host's Node is the one that runs npm; commands run under the pinned one. */
async function checkNode(): Promise<Finding> {
  const host = /node\/v(\S+)/.exec(process.env.npm_config_user_agent ?? '')?.[1];
  const found = `${process.version} for the commands${host ? `, ${host} for npm` : ''}`;
  return host && Number.parseInt(host, 10) < 20
    ? { status: 'fail', found, fix: 'install Node 20 or newer: https://nodejs.org/en/download' }
    : { status: 'ok', found };
}

async function checkPython(): Promise<Finding> {
  const version = await checkVersion('python3', ['--version'], [3, 11], 'sudo apt-get install python3 python3-venv');
  if (version.status !== 'ok') return version;
  return run('python3', ['-c', 'import venv, ensurepip']).then(
    (): Finding => version,
    (): Finding => ({
      status: 'fail',
      found: `${version.found}, without venv`,
      fix: 'sudo apt-get install python3-venv',
    }),
  );
}

async function checkVersion(
  program: string,
  args: readonly string[],
  [major, minor]: readonly [number, number],
  fix: string,
): Promise<Finding> {
  const output = await run(program, args).catch(() => undefined);
  if (output === undefined) return { status: 'fail', found: `${program} cannot be run`, fix };
  const found = output.split('\n', 1)[0] ?? '';
  const version = /(\d+)\.(\d+)/.exec(found);
  const [foundMajor, foundMinor] = [Number(version?.[1] ?? 0), Number(version?.[2] ?? 0)];
  const enough = foundMajor > major || (foundMajor === major && foundMinor >= minor);
  return enough ? { status: 'ok', found } : { status: 'fail', found: `${found}; ${major}.${minor} is needed`, fix };
}

async function checkPackages(): Promise<Finding> {
  const missing = await missingPackages(Object.keys(DEBIAN_PACKAGES));
  if (missing.length === 0) return { status: 'ok', found: 'all installed' };
  const reasons = missing.map((name) => `${name} (${DEBIAN_PACKAGES[name]})`).join(', ');
  const root = process.getuid?.() === 0 || (await onPath('sudo'));
  const fix = root ? 'npm run setup' : `as root: apt-get install ${missing.join(' ')}`;
  return { status: 'fail', found: `missing: ${reasons}`, fix };
}

async function checkImages(): Promise<Finding> {
  try {
    const images = await locateGuestImages(location);
    return { status: 'ok', found: `${images.digest.slice(0, 16)} in ${location.cacheDirectory}` };
  } catch (error) {
    if (!(error instanceof MissingGuestImages)) throw error;
    return { status: 'warn', found: 'not built yet', fix: 'npm run setup' };
  }
}

async function onPath(program: string): Promise<boolean> {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const found = await access(join(directory, program), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

async function nearestExisting(path: string): Promise<string> {
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  return exists || path === dirname(path) ? path : nearestExisting(dirname(path));
}
