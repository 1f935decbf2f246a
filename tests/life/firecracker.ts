/** The real Firecracker, in the machine that scripts/nested makes. Nothing else in that machine runs any. */
import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startTestDaemon } from '@instavm/testing';
import type { Host } from './host.ts';

const { FIRECRACKER_BIN = '', JAILER_BIN = '' } = process.env;
/** Two minutes with the processor to itself. */
const START_MS = 900_000;
const CGROUPS = '/sys/fs/cgroup';
/** Of the setting's default range. */
const FIRST_UID = 1_900_000_000;
const UIDS = 10_000;

const nameOf = (incarnationId: string | null): string => String(incarnationId?.replace('_', '-'));

export const firecracker: Host = {
  vmm: 'firecracker',
  poll: { timeout: 300_000, interval: 500 },
  startMs: START_MS,
  longMs: 900_000,
  sockets: ['root/api.sock', 'root/vsock.sock'],
  releaseNames: /made by Firecracker (\S+) on .*, and this daemon runs Firecracker (?!\1)\S+ on /,
  start: (dataDirectory, settings = {}) => {
    const binaries = { INSTAVM_FIRECRACKER_BIN: FIRECRACKER_BIN, INSTAVM_JAILER_BIN: JAILER_BIN };
    return startTestDaemon({
      ...{ ...settings, vmm: 'firecracker', dataDirectory, startWithinMs: START_MS },
      env: { ...binaries, ...settings.env },
    });
  },
  vmms,
  homes: jails,
  homeOf: (dataDirectory, incarnationId) => join(dataDirectory, 'jails/firecracker', nameOf(incarnationId)),
  isSaving: (dataDirectory, incarnationId) => {
    const memory = join(firecracker.homeOf(dataDirectory, incarnationId), 'root/memory');
    return (statSync(memory, { throwIfNoEntry: false })?.blocks ?? 0) > 0;
  },
  traces: async (dataDirectory) => {
    const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').filter((line) => line.includes(dataDirectory));
    const sockets = (await readFile('/proc/net/unix', 'utf8'))
      .split('\n')
      .filter((line) => /(api|vsock)\.sock$/.test(line));
    const partial = (await readdir(join(dataDirectory, 'snapshots')).catch(() => [])).filter((name) =>
      name.startsWith('.'),
    );
    const running = (await vmms()).map((pid) => `process ${pid}`);
    return [...running, ...(await cgroups()), ...(await jails(dataDirectory)), ...mounts, ...sockets, ...partial];
  },
  anotherRelease,
  // The machine's, which goes with it.
  ownCache: async () => ({
    templates: join(String(process.env.INSTAVM_CACHE_DIR), 'templates'),
    env: {},
  }),
};

/** The jailer's too. */
async function vmms(): Promise<number[]> {
  const found: number[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    const isOurs = uid >= FIRST_UID && uid < FIRST_UID + UIDS;
    if (isOurs || /^Name:\t(firecracker|jailer)/m.test(status)) found.push(Number(pid));
  }
  return found.sort((a, b) => a - b);
}

/** Cgroups of jails, and those above them. */
export async function cgroups(): Promise<string[]> {
  const found: string[] = [];
  for (const parent of (await readdir(CGROUPS)).filter((name) => /^instavm-[0-9a-f]{12}$/.test(name))) {
    const inside = await readdir(join(CGROUPS, parent), { withFileTypes: true });
    found.push(parent, ...inside.filter((entry) => entry.isDirectory()).map(({ name }) => `${parent}/${name}`));
  }
  return found;
}

async function jails(dataDirectory: string): Promise<string[]> {
  const paths = await readdir(join(dataDirectory, 'jails'), { recursive: true }).catch(() => []);
  return paths.filter((path) => path.split('/').length === 2);
}

/** Its version is in the names of files, as in those of releases. */
async function anotherRelease(directory: string): Promise<Record<string, string>> {
  const settings: Record<string, string> = {};
  for (const name of ['FIRECRACKER_BIN', 'JAILER_BIN']) {
    const path = String(process.env[name]);
    const { stdout } = await promisify(execFile)(path, ['--version']);
    const [, version = '', patch = ''] = /v((?:\d+\.){2}(\d+))/.exec(stdout) ?? [];
    const other = version.slice(0, -1) + ((Number(patch.at(-1)) + 1) % 10);
    const copy = join(directory, `${name.startsWith('JAILER') ? 'jailer' : 'firecracker'}-v${other}-x86_64`);
    await writeFile(copy, renamed(await readFile(path), version, other), { mode: 0o755 });
    settings[`INSTAVM_${name}`] = copy;
  }
  return settings;
}

/** A program that gives another version, of as many letters. */
export function renamed(program: Buffer, version: string, other: string): Buffer {
  for (let at = program.indexOf(version); at >= 0; at = program.indexOf(version, at)) program.write(other, at);
  return program;
}
