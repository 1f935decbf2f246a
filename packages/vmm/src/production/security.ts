/** What keeps sandboxes from learning of each other, and of the host, beside the VMM and its jail. */
import type { HostFiles, HostFinding, ProductionCheck } from './host.ts';
import { isAtLeast } from './version.ts';

const VULNERABILITIES = '/sys/devices/system/cpu/vulnerabilities';
/** The oldest kernel that Firecracker's releases are tested on. */
const OLDEST_KERNEL = [5, 10] as const;

const UNKNOWN: HostFinding = { status: 'n/a', found: 'the kernel does not tell' };

export const SECURITY_CHECKS: readonly ProductionCheck[] = [
  { name: 'host kernel', isRequired: true, look: lookAtKernel },
  { name: 'cgroups', isRequired: true, look: lookAtCgroups },
  { name: 'CPU flaws', isRequired: true, look: lookAtVulnerabilities },
  { name: 'KSM', isRequired: true, look: lookAtKsm },
  { name: 'SMT', isRequired: false, look: lookAtSmt },
  { name: 'Spectre v2', isRequired: false, look: lookAtSpectreV2 },
  { name: 'L1TF', isRequired: false, look: lookAtL1tf },
  { name: 'store bypass', isRequired: false, look: lookAtStoreBypass },
  { name: 'swap', isRequired: false, look: lookAtSwap },
  { name: 'core dumps', isRequired: false, look: lookAtCoreDumps },
  { name: 'nested KVM', isRequired: false, look: lookAtNested },
  { name: '/dev/kvm', isRequired: false, look: lookAtKvmDevice },
  { name: 'ECC memory', isRequired: false, look: lookAtEcc },
];

async function lookAtKernel(host: HostFiles): Promise<HostFinding> {
  const release = await host.read('/proc/sys/kernel/osrelease');
  if (release === undefined) return UNKNOWN;
  return isAtLeast(release, OLDEST_KERNEL)
    ? { status: 'ok', found: release }
    : { status: 'warn', found: `${release}; Firecracker is tested on 5.10 and newer`, fix: 'install a newer kernel' };
}

/** Jails are limited by v2 alone. */
async function lookAtCgroups(host: HostFiles): Promise<HostFinding> {
  const fix = 'boot with systemd.unified_cgroup_hierarchy=1';
  const controllers = (await host.read('/sys/fs/cgroup/cgroup.controllers'))?.split(' ');
  if (controllers === undefined) return { status: 'warn', found: 'not v2, or v1 beside it: jails have no limits', fix };
  const missing = ['cpu', 'io', 'memory', 'pids'].filter((name) => !controllers.includes(name));
  return missing.length > 0
    ? { status: 'warn', found: `v2 without ${missing.join(', ')}: jails are not limited in it`, fix }
    : { status: 'ok', found: 'v2, with cpu, io, memory and pids' };
}

async function lookAtVulnerabilities(host: HostFiles): Promise<HostFinding> {
  const names = await host.list(VULNERABILITIES);
  if (names.length === 0) return UNKNOWN;
  const open: string[] = [];
  for (const name of names) {
    const state = (await host.read(`${VULNERABILITIES}/${name}`)) ?? '';
    if (/vulnerable/i.test(state)) open.push(`${name} (${state})`);
  }
  if (open.length === 0)
    return { status: 'ok', found: `all ${names.length} that the kernel knows are mitigated, or not of this processor` };
  const bySmt = open.every((flaw) => /SMT vulnerable/.test(flaw));
  return {
    status: 'warn',
    found: `not mitigated: ${open.join('; ')}`,
    fix: bySmt
      ? 'boot with nosmt: on this processor the threads of a core can read each other'
      : 'install the microcode package of the processor and a newer kernel, and do not boot with mitigations=off',
  };
}

/** Merged pages tell by their speed what another guest has in memory. */
async function lookAtKsm(host: HostFiles): Promise<HostFinding> {
  const run = await host.read('/sys/kernel/mm/ksm/run');
  if (run === undefined) return { status: 'ok', found: 'the kernel has none' };
  return run === '1'
    ? {
        status: 'warn',
        found: 'on: sandboxes can find out by timing which pages others have',
        fix: 'echo 0 | sudo tee /sys/kernel/mm/ksm/run, and disable ksmtuned',
      }
    : { status: 'ok', found: 'off: no page is shared between sandboxes by its contents' };
}

/** Two guests on one core see each other's traces in its caches. */
async function lookAtSmt(host: HostFiles): Promise<HostFinding> {
  const active = await host.read('/sys/devices/system/cpu/smt/active');
  if (active === undefined) return UNKNOWN;
  return active === '1'
    ? {
        status: 'warn',
        found: 'on: two sandboxes may share a core, and side channels cross it',
        fix: 'boot with nosmt, or: echo off | sudo tee /sys/devices/system/cpu/smt/control',
      }
    : { status: 'ok', found: 'off: no two sandboxes share a core at once' };
}

/** Without a barrier a guest can train the branch predictor for the next process on its core. */
async function lookAtSpectreV2(host: HostFiles): Promise<HostFinding> {
  const state = await host.read(`${VULNERABILITIES}/spectre_v2`);
  if (state === undefined) return UNKNOWN;
  if (/^Not affected/.test(state)) return { status: 'ok', found: 'not affected' };
  return /IBPB: (conditional|always-on)/.test(state)
    ? { status: 'ok', found: state }
    : {
        status: 'warn',
        found: `no barrier between processes (IBPB): ${state}`,
        fix: 'install the microcode package of the processor, and do not boot with spectre_v2_user=off',
      };
}

async function lookAtL1tf(host: HostFiles): Promise<HostFinding> {
  const state = await host.read(`${VULNERABILITIES}/l1tf`);
  if (state === undefined) return UNKNOWN;
  if (/^Not affected/.test(state)) return { status: 'ok', found: 'not affected' };
  return /VMX: cache flushes/.test(state)
    ? { status: 'ok', found: state }
    : {
        status: 'warn',
        found: `the cache is not flushed before every entry of a guest: ${state}`,
        fix: 'boot with l1tf=full,force',
      };
}

async function lookAtStoreBypass(host: HostFiles): Promise<HostFinding> {
  const state = await host.read(`${VULNERABILITIES}/spec_store_bypass`);
  if (state === undefined) return UNKNOWN;
  if (/^Not affected|seccomp|Speculative Store Bypass disabled$/.test(state)) return { status: 'ok', found: state };
  return {
    status: 'warn',
    found: `only for programs that ask for it, and VMMs do not: ${state}`,
    fix: 'boot with spec_store_bypass_disable=seccomp',
  };
}

/** Jails may not swap; the rest of the host could still write what it has of guests to a disk. */
async function lookAtSwap(host: HostFiles): Promise<HostFinding> {
  const [, ...areas] = ((await host.read('/proc/swaps')) ?? '').split('\n');
  const names = areas.map((line) => line.split(/\s+/, 1)[0] ?? '').filter(Boolean);
  const onDisk = names.filter((name) => !name.startsWith('/dev/zram'));
  if (onDisk.length === 0)
    return { status: 'ok', found: 'none on a disk: memory of sandboxes reaches disks by snapshots alone' };
  return {
    status: 'warn',
    found: `on ${onDisk.join(', ')}: memory of sandboxes may stay on a disk after they ended`,
    fix: 'sudo swapoff -a, and remove it from /etc/fstab; or encrypt it',
  };
}

/** A crashed VMM has its guest's memory in it. */
async function lookAtCoreDumps(host: HostFiles): Promise<HostFinding> {
  const pattern = await host.read('/proc/sys/kernel/core_pattern');
  if (pattern === undefined) return UNKNOWN;
  return pattern.startsWith('|')
    ? {
        status: 'warn',
        found: `go to ${pattern.slice(1).split(' ', 1)[0]}: the memory of a sandbox whose VMM crashes may be kept`,
        fix: 'sudo sysctl kernel.core_pattern=/dev/null, and the same in /etc/sysctl.d',
      }
    : { status: 'ok', found: 'only where the limit of a process allows them' };
}

async function lookAtNested(host: HostFiles): Promise<HostFinding> {
  for (const module of ['kvm_intel', 'kvm_amd']) {
    const nested = await host.read(`/sys/module/${module}/parameters/nested`);
    if (nested === undefined) continue;
    return /^[1Y]$/.test(nested)
      ? {
          status: 'warn',
          found: `on in ${module}: code of the host that no sandbox needs, and guests may reach`,
          fix: `echo "options ${module} nested=0" | sudo tee /etc/modprobe.d/instavm.conf, then load ${module} again`,
        }
      : { status: 'ok', found: 'off: guests reach no code of the host for virtualisation inside them' };
  }
  return UNKNOWN;
}

async function lookAtKvmDevice(host: HostFiles): Promise<HostFinding> {
  const mode = await host.mode('/dev/kvm');
  if (mode === undefined) return { status: 'n/a', found: 'there is none' };
  return (mode & 0o006) === 0
    ? { status: 'ok', found: 'open to its owner and group' }
    : {
        status: 'warn',
        found: 'open to every user of the host',
        fix: `echo 'KERNEL=="kvm", GROUP="kvm", MODE="0660"' | sudo tee /etc/udev/rules.d/65-kvm.rules, and: sudo chmod 660 /dev/kvm`,
      };
}

/** Rowhammer: a guest that reads one row of memory often enough changes bits in the next. */
async function lookAtEcc(host: HostFiles): Promise<HostFinding> {
  const controllers = (await host.list('/sys/devices/system/edac/mc')).filter((name) => /^mc\d/.test(name));
  return controllers.length > 0
    ? { status: 'ok', found: `${controllers.length} memory controllers correct errors` }
    : { status: 'n/a', found: 'the kernel does not tell; use memory that corrects errors and refreshes neighbours' };
}
