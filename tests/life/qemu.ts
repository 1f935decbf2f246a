/** QEMU, on any machine. Others may run on it: only what belongs to the data directory is looked at. */
import { execFile } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startTestDaemon } from '@instavm/testing';
import { parentCgroupOf } from '../../apps/instavmd/src/choose-vmm.ts';
import { renamed } from './firecracker.ts';
import type { Cache, Host } from './host.ts';

const START_MS = 280_000;
const BINARY = '/usr/bin/qemu-system-x86_64';

const runIn = (dataDirectory: string): string => join(dataDirectory, 'run');
const names = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

export const qemu: Host = {
  vmm: 'qemu',
  poll: { timeout: 100_000, interval: 100 },
  startMs: START_MS,
  longMs: 400_000,
  sockets: ['control.sock', 'egress.sock', 'qmp.sock'],
  releaseNames: /made by QEMU emulator version (\S+) .*, and this daemon runs QEMU emulator version (?!\1)\S+ /,
  start: (dataDirectory, settings = {}) => startTestDaemon({ ...settings, vmm: 'qemu', dataDirectory }),
  vmms,
  homes: (dataDirectory) => names(runIn(dataDirectory)),
  homeOf: (dataDirectory, incarnationId) => join(runIn(dataDirectory), String(incarnationId)),
  isSaving: (dataDirectory) => {
    const snapshots = join(dataDirectory, 'snapshots');
    const stored = (name: string): number =>
      statSync(join(snapshots, name, 'state'), { throwIfNoEntry: false })?.size ?? 0;
    return readdirSync(snapshots).some((name) => isPartial(name) && stored(name) > 0);
  },
  traces: async (dataDirectory) => {
    const running = (await vmms(dataDirectory)).map((pid) => `process ${pid}`);
    const groups = await readdir(join('/sys/fs/cgroup', parentCgroupOf(dataDirectory)), { withFileTypes: true })
      .then((entries) => entries.filter((entry) => entry.isDirectory()).map(({ name }) => `cgroup ${name}`))
      .catch(() => []);
    return [...running, ...groups, ...(await names(runIn(dataDirectory))), ...(await partial(dataDirectory))];
  },
  anotherRelease,
  ownCache,
};

const isPartial = (name: string): boolean => name.startsWith('.');
const partial = async (dataDirectory: string): Promise<string[]> =>
  (await names(join(dataDirectory, 'snapshots'))).filter(isPartial);

/** Also one whose directory is gone: it works there all the same. */
async function vmms(dataDirectory: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (cwd.startsWith(`${runIn(dataDirectory)}/`)) found.push(Number(pid));
  }
  return found.sort((a, b) => a - b);
}

/** It looks for its firmware beside itself. */
async function anotherRelease(directory: string): Promise<Record<string, string>> {
  await mkdir(join(directory, 'bin'));
  for (const name of ['share', 'lib']) await symlink(join('/usr', name), join(directory, name));
  const { stdout } = await promisify(execFile)(BINARY, ['--version']);
  const [, version = ''] = /version (\S+)/.exec(stdout) ?? [];
  const other = version.slice(0, -1) + ((Number(version.at(-1)) + 1) % 10);
  const copy = join(directory, 'bin/qemu-system-x86_64');
  await writeFile(copy, renamed(await readFile(BINARY), version, other), { mode: 0o755 });
  // Nobody has to find out again whether KVM works here.
  const verdict = JSON.parse(await readFile(join(sharedCache(), 'kvm-verdict.json'), 'utf8').catch(() => '{}'));
  return { INSTAVM_QEMU_BIN: copy, INSTAVM_ACCELERATOR: verdict.usable === true ? 'kvm' : 'tcg' };
}

const sharedCache = (): string => String(process.env.INSTAVM_TEST_CACHE_DIR);

/** With what is in the one that all tests share; what a daemon adds is its own. */
async function ownCache(path: string): Promise<Cache> {
  const templates = join(path, 'templates');
  await mkdir(templates);
  const shared = await names(sharedCache());
  for (const name of shared.filter((name) => name !== 'templates'))
    await symlink(join(sharedCache(), name), join(path, name));
  for (const name of await names(join(sharedCache(), 'templates')))
    if (!name.startsWith('.')) await symlink(join(sharedCache(), 'templates', name), join(templates, name));
  return { templates, env: { INSTAVM_CACHE_DIR: path } };
}
