/** What is measured: the daemon over one of its backends, how often, and which processes are its VMMs. */
import { mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';

export type Counts = {
  readonly creates: number;
  readonly execs: number;
  readonly sequential: number;
  readonly parallel: number;
  readonly pool: number;
  readonly suspensions: number;
  readonly burst: number;
  readonly fleet: number;
  /** Of the fleet, after which the daemon's memory is looked at. */
  readonly few: number;
};

export const FULL: Counts = {
  ...{ creates: 15, execs: 60, sequential: 200, parallel: 50 },
  ...{ pool: 10, suspensions: 5, burst: 20, fleet: 100, few: 20 },
};
/** To see that it runs to its end. */
export const QUICK: Counts = {
  ...{ creates: 2, execs: 3, sequential: 3, parallel: 3 },
  ...{ pool: 1, suspensions: 1, burst: 2, fleet: 2, few: 1 },
};

export type Subject = {
  readonly counts: Counts;
  readonly poolTarget: string;
  /** @param env further settings of the daemon */
  start(env?: Readonly<Record<string, string>>): Promise<TestDaemon>;
  /** Pids. */
  vmmsOf(daemon: TestDaemon): Promise<number[]>;
};

export const QEMU: Subject = {
  counts: FULL,
  poolTarget: '≤ 2 × one exec',
  start: (env = {}) => startTestDaemon({ vmm: 'qemu', env }),
  // A VMM works in the run directory of its microVM.
  vmmsOf: async ({ dataDirectory }) => {
    const run = join(dataDirectory, 'run');
    const found: number[] = [];
    for (const pid of await readdir('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
      if (cwd.startsWith(run)) found.push(Number(pid));
    }
    return found;
  },
};

/** A first start makes a template; where everything is emulated that takes minutes. */
const START_MS = 1_200_000;

export type FirecrackerSite = {
  readonly counts: Counts;
  readonly binaries: { readonly firecracker: string; readonly jailer: string };
  /** On the filesystem of the cache, as jails demand. */
  readonly directory: string;
};

export const firecrackerSubject = ({ counts, binaries, directory }: FirecrackerSite): Subject => ({
  counts,
  poolTarget: '≤ 10 ms',
  start: async (env = {}) => {
    const dataDirectory = await mkdtemp(join(directory, 'data-'));
    const own = { INSTAVM_FIRECRACKER_BIN: binaries.firecracker, INSTAVM_JAILER_BIN: binaries.jailer, ...env };
    const daemon = await startTestDaemon({ vmm: 'firecracker', dataDirectory, startWithinMs: START_MS, env: own });
    const stop = (): Promise<void> => daemon.stop().then(() => rm(dataDirectory, { recursive: true, force: true }));
    return { ...daemon, stop };
  },
  // A VMM is in the cgroup that bears its jail's name.
  vmmsOf: async ({ dataDirectory }) => {
    const jails = new Set(await readdir(join(dataDirectory, 'jails'), { recursive: true }).catch(() => []));
    const names = new Set([...jails].map((path) => path.split('/')[1]));
    const found: number[] = [];
    for (const group of await readdir('/sys/fs/cgroup', { recursive: false })) {
      if (!group.startsWith('instavm-')) continue;
      for (const name of await readdir(join('/sys/fs/cgroup', group))) {
        if (!names.has(name)) continue;
        const pids = await readFile(join('/sys/fs/cgroup', group, name, 'cgroup.procs'), 'utf8').catch(() => '');
        // KVM's own threads are in it, too; they run no program.
        for (const pid of pids.split('\n').filter(Boolean)) {
          const program = await readlink(`/proc/${pid}/exe`).catch(() => undefined);
          if (program !== undefined) found.push(Number(pid));
        }
      }
    }
    return found;
  },
});
