/** Installs the Debian packages that the host lacks, after saying which; the only part of setup that needs root. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Progress } from './report.ts';
import { run, runVisibly } from './run.ts';

/** Each with what needs it. */
export const DEBIAN_PACKAGES: Readonly<Record<string, string>> = {
  'qemu-system-x86': 'runs the microVMs',
  mmdebstrap: 'builds the base image',
  'debian-archive-keyring': 'checks the packages in the base image',
  'erofs-utils': 'makes the base image a filesystem',
  e2fsprogs: 'formats overlays',
  lz4: 'unpacks the kernel for Firecracker',
  kmod: 'orders kernel modules',
  gcc: 'links the guest agent',
  'libc6-dev': 'links the guest agent',
};

/** What tests open previews with. Not everywhere under these names: without them, tests that need them say so and are skipped, but not in CI. */
export const BROWSER_PACKAGES: Readonly<Record<string, string>> = {
  chromium: 'opens previews',
  'libnss3-tools': 'lets it trust their certificate authority',
};

const LISTS = '/var/lib/apt/lists';
const LISTS_STALE_AFTER_MS = 24 * 3600_000;

/** @param willDownload whether a later step asks apt for packages, so that its lists must be recent */
export async function installDebianPackages(
  progress: Progress,
  willDownload: boolean,
  signal: AbortSignal,
): Promise<string> {
  const wanted = Object.keys(DEBIAN_PACKAGES);
  if (process.getuid?.() !== 0) wanted.push('uidmap');
  const missing = await missingPackages(wanted);
  if (missing.length === 0 && !willDownload) return 'all installed';

  if (await listsAreStale()) {
    progress('refreshing apt package lists');
    await asRoot(['apt-get', 'update', '-q'], signal);
  }
  if (missing.length === 0) return 'all installed';
  await install(missing, progress, signal);
  return `installed ${missing.length} packages`;
}

/** @throws in CI, when they cannot be had */
export async function installBrowser(progress: Progress, signal: AbortSignal): Promise<string> {
  const missing = await missingPackages(Object.keys(BROWSER_PACKAGES));
  if (missing.length === 0) return 'installed';
  try {
    if (await listsAreStale()) await asRoot(['apt-get', 'update', '-q'], signal);
    await install(missing, progress, signal);
    return `installed ${missing.length} packages`;
  } catch (error) {
    if (process.env.CI !== undefined || signal.aborted) throw error;
    return `not installed, so its tests are skipped: ${(error as Error).message.split('\n').at(-1)?.trim()}`;
  }
}

async function install(packages: readonly string[], progress: Progress, signal: AbortSignal): Promise<void> {
  progress(`installing ${packages.join(', ')}`);
  await asRoot(['apt-get', 'install', '-y', '-q', '--no-install-recommends', ...packages], signal);
}

export async function missingPackages(wanted: readonly string[]): Promise<string[]> {
  // dpkg-query fails when one of the names is unknown to it, and still lists the others.
  const query = `dpkg-query -W -f '\${Package} \${db:Status-Status}\\n' "$@" 2>/dev/null || true`;
  const listing = await run('sh', ['-c', query, 'sh', ...wanted]);
  const installed = new Set(
    listing.split('\n').flatMap((line) => (line.endsWith(' installed') ? [line.split(' ')[0]] : [])),
  );
  return wanted.filter((name) => !installed.has(name));
}

async function listsAreStale(): Promise<boolean> {
  const names = (await readdir(LISTS)).filter((name) => name.includes('Packages'));
  const changes = await Promise.all(names.map(async (name) => (await stat(join(LISTS, name))).ctimeMs));
  return Date.now() - Math.max(0, ...changes) > LISTS_STALE_AFTER_MS;
}

async function asRoot(command: readonly string[], signal: AbortSignal): Promise<void> {
  const [program = '', ...args] =
    process.getuid?.() === 0 ? command : ['sudo', 'DEBIAN_FRONTEND=noninteractive', ...command];
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  // sudo may ask for a password, so it gets the terminal.
  if (program === 'sudo') {
    const ended = await runVisibly(program, args, { env, signal });
    if (ended !== 0) throw new Error(`${command.join(' ')} failed (${ended}); run it yourself as root, then try again`);
    return;
  }
  await run(program, args, { env, signal });
}
