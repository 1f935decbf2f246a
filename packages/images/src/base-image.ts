/**
 * The base image: Debian 12 with the tools that agents reach for, as an uncompressed erofs filesystem (decompression is
 * slow under emulation). Built by mmdebstrap as root, or as an ordinary user inside a user namespace, so that owners and
 * set-user-id bits come out right either way.
 */
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AptSourceFile, debianSources, PUBLIC_SOURCES } from './apt-sources.ts';
import type { ArtifactRecipe, Progress } from './artifact-cache.ts';
import { runCommand } from './command.ts';
import { ROOT_OF_A_NAMESPACE, removeTree } from './remove-tree.ts';

// biome-ignore format: one group a line
const PACKAGES: readonly string[] = [
  'bash', 'coreutils', 'diffutils', 'file', 'findutils', 'gawk', 'less', 'patch', 'procps', 'psmisc', 'sudo', 'tzdata',
  'bzip2', 'rsync', 'tar', 'unzip', 'xz-utils', 'zip', 'zstd',
  'build-essential', 'ipython3', 'nodejs', 'npm', 'python-is-python3', 'python3', 'python3-pip', 'python3-venv',
  'ca-certificates', 'curl', 'fuse3', 'git', 'iproute2', 'netbase', 'nftables', 'openssh-client', 'wget',
  'jq', 'nano', 'ripgrep', 'tmux', 'vim',
];

const DPKG_OPTIONS = [
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/locale/*',
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
];

/**
 * Runs on the host with the image's root as `$1`, after every package is configured. It must leave the image's /tmp alone:
 * mmdebstrap keeps its apt configuration there, and without it the clean-up that follows would clean the host's apt.
 */
const CUSTOMIZE = String.raw`
set -eu
root=$1
# Root in a sandbox may use pip directly; the sandbox is the virtual environment.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
printf '[global]\nroot-user-action = ignore\ndisable-pip-version-check = true\n' > "$root/etc/pip.conf"
printf 'update-notifier=false\nfund=false\naudit=false\n' > "$root/etc/npmrc"
printf '%%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n' > "$root/etc/sudoers.d/sandbox"
chmod 0440 "$root/etc/sudoers.d/sandbox"
# What belongs to one machine is set by the guest agent in every clone.
: > "$root/etc/machine-id"
echo sandbox > "$root/etc/hostname"
printf '127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n' > "$root/etc/hosts"
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > "$root/etc/resolv.conf"
# Inside, apt is set to the public archive, not to the mirror or proxy of the machine that built the image.
rm -rf "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap
printf '%s' "$INSTAVM_PUBLIC_SOURCES" > "$root/etc/apt/sources.list.d/debian.sources"
find "$root/var/log" -type f -delete
rm -rf "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/root/.cache "$root"/root/.wget-hsts
`;

/**
 * Unpacks the finished tree and makes the filesystem. As root, mmdebstrap gets a mount namespace of its own, so that what it
 * mounts goes with it however it ends. `--preserve-mtime`: Python compares bytecode with its source's time.
 */
const PIPELINE = `
set -euo pipefail
tree=$1 image=$2; shift 2
mounts="unshare --mount"
[ "$(id -u)" = 0 ] || mounts=
$mounts mmdebstrap "$@" | $INSTAVM_AS_ROOT tar -C "$tree" --numeric-owner -xp --exclude='./dev/*'
$INSTAVM_AS_ROOT mkfs.erofs --quiet --preserve-mtime "$image" "$tree" >&2
`;

export const baseRecipe: ArtifactRecipe = {
  kind: 'base',
  inputs: { revision: 1, packages: PACKAGES, dpkg: DPKG_OPTIONS, customize: CUSTOMIZE, pipeline: PIPELINE },
  async build(directory, progress, signal) {
    const asRoot = process.getuid?.() === 0 ? '' : await userNamespaceCommand();
    // A killed build's scratch goes with its directory. Subordinate ids may be unable to enter that, so they use /tmp.
    const scratch = asRoot ? await mkdtemp(join(tmpdir(), 'instavm-base-')) : join(directory, 'scratch');
    await mkdir(scratch, { recursive: true });
    const tree = join(directory, 'tree');
    try {
      const sources = join(scratch, 'debian.sources');
      await writeFile(sources, debianSources(await hostAptSources()));
      await mkdir(tree);
      progress(`installing ${PACKAGES.length} packages and what they need into the base image`);
      const mmdebstrap = [
        `--mode=${asRoot ? 'unshare' : 'root'}`,
        '--variant=minbase',
        '--format=tar',
        `--include=${PACKAGES.join(',')}`,
        '--aptopt=Apt::Install-Recommends "false"',
        ...(await hostAptNetworkOptions()).map((option) => `--aptopt=${option}`),
        ...DPKG_OPTIONS.map((option) => `--dpkgopt=${option}`),
        `--customize-hook=${CUSTOMIZE}`,
        'bookworm',
        '-',
        sources,
      ];
      await runCommand('bash', ['-c', PIPELINE, 'bash', tree, join(directory, 'base.erofs'), ...mmdebstrap], {
        env: { TMPDIR: asRoot ? tmpdir() : scratch, INSTAVM_AS_ROOT: asRoot, INSTAVM_PUBLIC_SOURCES: PUBLIC_SOURCES },
        onLine: forwardStages(progress),
        signal,
      });
    } finally {
      await removeTree(scratch);
      await removeTree(tree);
    }
  },
};

/** mmdebstrap says `I: installing packages...` when a stage begins. */
function forwardStages(progress: Progress): (line: string) => void {
  return (line) => {
    const stage = /^I: ([a-z ]+)\.\.\.$/.exec(line)?.[1];
    if (stage) progress(stage);
  };
}

/**
 * The prefix that runs a program as root of a user namespace with a whole range of ids.
 * @throws Error with the remedy when this machine does not allow it
 */
async function userNamespaceCommand(): Promise<string> {
  try {
    await runCommand('unshare', [...ROOT_OF_A_NAMESPACE, 'true']);
  } catch (cause) {
    throw new Error(
      'building the base image without root needs user namespaces and a range of subordinate ids for this user. ' +
        'Run: sudo apt-get install uidmap && sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"; ' +
        'or run npm run setup as root once',
      { cause },
    );
  }
  return ['unshare', ...ROOT_OF_A_NAMESPACE].join(' ');
}

async function hostAptSources(): Promise<AptSourceFile[]> {
  const directory = '/etc/apt/sources.list.d';
  const names = (await readdir(directory).catch(() => [])).filter((name) => /\.(list|sources)$/.test(name)).sort();
  const paths = ['/etc/apt/sources.list', ...names.map((name) => join(directory, name))];
  const files = await Promise.all(
    paths.map(async (name) => ({ name, text: await readFile(name, 'utf8').catch(() => '') })),
  );
  return files.filter((file) => file.text);
}

/** mmdebstrap's apt does not read the host's configuration; how to reach the archive is the part that it needs. */
async function hostAptNetworkOptions(): Promise<string[]> {
  const dump = await runCommand('apt-config', ['dump', '--no-empty', '--format', '%F "%v";%n', 'Acquire']);
  return dump.split('\n').filter((line) => /^Acquire::(https?::|Retries|Check-)/.test(line));
}
