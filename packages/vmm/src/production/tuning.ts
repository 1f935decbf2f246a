/** What makes starts slow, or fail before the memory is used up. */
import type { HostFiles, HostFinding, ProductionCheck } from './host.ts';
import { isAtLeast } from './version.ts';

/** Firecracker has five to ten threads; so many sandboxes are no fancy. */
const COMFORTABLE_PIDS = 65_536;
const DEFAULT_MAP_COUNT = 65_530;

const UNKNOWN: HostFinding = { status: 'n/a', found: 'the kernel does not tell' };

export const TUNING_CHECKS: readonly ProductionCheck[] = [
  { name: 'cgroup moves', isRequired: false, look: lookAtFavordynmods },
  { name: 'nx_huge_pages', isRequired: false, look: lookAtNxHugePages },
  { name: 'guest timers', isRequired: false, look: lookAtTimers },
  { name: 'huge pages', isRequired: false, look: lookAtHugePages },
  { name: 'THP', isRequired: false, look: lookAtTransparentHugePages },
  { name: 'overcommit', isRequired: false, look: lookAtOvercommit },
  { name: 'pid_max', isRequired: false, look: lookAtPids },
  { name: 'max_map_count', isRequired: false, look: lookAtMaps },
];

const isSince61 = async (host: HostFiles): Promise<boolean> =>
  isAtLeast((await host.read('/proc/sys/kernel/osrelease')) ?? '0', [6, 1]);

/** Since 6.1 moving a process into a cgroup waits for all processors, unless the mount says otherwise. */
async function lookAtFavordynmods(host: HostFiles): Promise<HostFinding> {
  const mounts = ((await host.read('/proc/self/mounts')) ?? '').split('\n');
  const options = mounts.map((line) => line.split(' ')).find(([, at]) => at === '/sys/fs/cgroup')?.[3];
  if (options === undefined) return UNKNOWN;
  if (!(await isSince61(host)) || options.split(',').includes('favordynmods')) return { status: 'ok', found: 'fast' };
  return {
    status: 'warn',
    found: 'slow on this kernel: every start of a jail waits for all processors',
    fix: 'sudo mount -o remount,favordynmods /sys/fs/cgroup',
  };
}

/** The remedy of a flaw that many processors do not have; it costs time when a guest starts. */
async function lookAtNxHugePages(host: HostFiles): Promise<HostFinding> {
  const value = await host.read('/sys/module/kvm/parameters/nx_huge_pages');
  if (value === undefined) return UNKNOWN;
  const flaw = (await host.read('/sys/devices/system/cpu/vulnerabilities/itlb_multihit')) ?? '';
  if (!/^Not affected/.test(flaw) || !(await isSince61(host)) || value === 'never')
    return { status: 'ok', found: value };
  return {
    status: 'warn',
    found: `${value}, though this processor does not need it; it costs time when a guest starts`,
    fix: 'echo "options kvm nx_huge_pages=never" | sudo tee -a /etc/modprobe.d/instavm.conf, then load kvm again',
  };
}

/** A guest that sets its timers to nothing keeps a thread of the host's kernel busy. */
async function lookAtTimers(host: HostFiles): Promise<HostFinding> {
  const period = await host.read('/sys/module/kvm/parameters/min_timer_period_us');
  if (period === undefined) return UNKNOWN;
  return Number(period) > 0
    ? { status: 'ok', found: `at most one in ${period} µs` }
    : {
        status: 'warn',
        found: 'as many as a guest likes',
        fix: 'echo 200 | sudo tee /sys/module/kvm/parameters/min_timer_period_us',
      };
}

async function lookAtHugePages(host: HostFiles): Promise<HostFinding> {
  const meminfo = (await host.read('/proc/meminfo')) ?? '';
  const [pages, kib] = [/^HugePages_Total:\s+(\d+)/m, /^Hugepagesize:\s+(\d+)/m].map((line) =>
    Number(line.exec(meminfo)?.[1] ?? 0),
  );
  const mib = ((pages ?? 0) * (kib ?? 0)) / 1024;
  return mib === 0
    ? { status: 'ok', found: 'none reserved' }
    : {
        status: 'warn',
        found: `${mib} MiB are reserved, which no sandbox uses: memory is mapped from files, page by page`,
        fix: 'sudo sysctl vm.nr_hugepages=0',
      };
}

async function lookAtTransparentHugePages(host: HostFiles): Promise<HostFinding> {
  const enabled = await host.read('/sys/kernel/mm/transparent_hugepage/enabled');
  if (enabled === undefined) return UNKNOWN;
  const value = /\[(\w+)\]/.exec(enabled)?.[1] ?? enabled;
  return value === 'always'
    ? {
        status: 'warn',
        found: 'always: every VMM may take 2 MiB for the stack of a thread, which needs a few pages',
        fix: 'echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled',
      }
    : { status: 'ok', found: value };
}

/** Memory that clones share counts as if each had its own. */
async function lookAtOvercommit(host: HostFiles): Promise<HostFinding> {
  const mode = await host.read('/proc/sys/vm/overcommit_memory');
  if (mode === undefined) return UNKNOWN;
  return mode === '2'
    ? {
        status: 'warn',
        found: 'strict: every microVM counts with all of its memory, though most of it is shared',
        fix: 'sudo sysctl vm.overcommit_memory=0',
      }
    : { status: 'ok', found: 'what clones share counts once it is theirs alone' };
}

async function lookAtPids(host: HostFiles): Promise<HostFinding> {
  const most = Number((await host.read('/proc/sys/kernel/pid_max')) ?? Number.NaN);
  if (Number.isNaN(most)) return UNKNOWN;
  return most >= COMFORTABLE_PIDS
    ? { status: 'ok', found: String(most) }
    : {
        status: 'warn',
        found: `${most}: enough for some ${Math.floor(most / 10)} sandboxes`,
        fix: 'sudo sysctl kernel.pid_max=4194304',
      };
}

async function lookAtMaps(host: HostFiles): Promise<HostFinding> {
  const most = Number((await host.read('/proc/sys/vm/max_map_count')) ?? Number.NaN);
  if (Number.isNaN(most)) return UNKNOWN;
  return most >= DEFAULT_MAP_COUNT
    ? { status: 'ok', found: String(most) }
    : {
        status: 'warn',
        found: `${most}, less than the kernel's default`,
        fix: `sudo sysctl vm.max_map_count=${DEFAULT_MAP_COUNT}`,
      };
}
