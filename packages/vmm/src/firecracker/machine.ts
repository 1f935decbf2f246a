/** What a microVM looks like to Firecracker. Pure. */
import type { Channel, MachineSize } from '@instavm/core';
import type { DiskLimits } from '../host/disk-limits.ts';

export { type DiskLimits, UNLIMITED } from '../host/disk-limits.ts';

/** Changes whenever a template made by older code could not be restored by this one. */
export const TEMPLATE_FORMAT = 1;

/** Names in a jail's root, which is Firecracker's working directory. They are stored in snapshots, so they are relative. */
export const FILES = {
  api: 'api.sock',
  /** Firecracker listens there for the host's connections to the guest. */
  vsock: 'vsock.sock',
  log: 'firecracker.log',
  counts: 'firecracker.counts',
  base: 'base.erofs',
  overlay: 'overlay.ext4',
  memory: 'memory',
  /** Of a snapshot. */
  memoryDelta: 'memory.tar',
  deviceState: 'state',
  kernel: 'vmlinux',
  initramfs: 'initramfs.cpio',
} as const;

/** On which the guest listens (spec/agent.proto). */
export const VSOCK_PORTS: Readonly<Record<Channel, number>> = { control: 10, egress: 11 };

/** The first that is not reserved; every guest has the same, for each has a vsock of its own. */
export const GUEST_CID = 3;

export const KERNEL_COMMAND_LINE = [
  'console=ttyS0',
  'loglevel=5',
  'panic=-1',
  // By the keyboard controller: the only signal of a guest that Firecracker takes for its end.
  'reboot=k',
  'rdinit=/init',
  'cgroup_no_v1=all',
  'random.trust_cpu=on',
  // No watchdog may distrust the TSC for the time that a clone spends frozen.
  'tsc=reliable',
  'pci=off',
  // The keyboard controller has nothing but the reset; looking for more takes half a second.
  ...['i8042.noaux', 'i8042.nomux', 'i8042.dumbkbd'],
  // Firecracker's disks have no serial number to choose; they come in the order in which they are attached.
  ...['instavm.base=vda', 'instavm.overlay=vdb'],
].join(' ');

export type Limits = {
  readonly memoryBytes: number;
  readonly pids: number;
  readonly cpuMax: string;
  readonly openFiles: number;
};

/** Firecracker's token bucket (its docs/api_requests/patch-block.md): `size` tokens, as many again in `refill_time` ms. Without either there is none. */
export type TokenBucket = { readonly size: number; readonly refill_time: number };
export type RateLimiter = { readonly bandwidth: TokenBucket; readonly ops: TokenBucket };

const REFILL_MS = 1000;

/** Says both, for what is left out stays as the snapshot has it. */
export const rateLimiterOf = ({ bytesPerSecond, operationsPerSecond }: DiskLimits): RateLimiter => ({
  bandwidth: bucketOf(bytesPerSecond),
  ops: bucketOf(operationsPerSecond),
});

const bucketOf = (perSecond: number): TokenBucket =>
  Number.isFinite(perSecond) ? { size: Math.ceil(perSecond), refill_time: REFILL_MS } : { size: 0, refill_time: 0 };

const MIB = 1024 * 1024;
/** Firecracker's own memory, and page cache of the guest's disks, which the kernel takes back when it must. */
const OVERHEAD_MIB = 128;
/** Main, API, and a few for the moment of a start. */
const THREADS = 8;
const CPU_PERIOD_US = 100_000;

/** What the jail of one microVM may use. A guest that does its worst reaches its own limits and nobody else's. */
export const limitsOf = (size: MachineSize): Limits => ({
  memoryBytes: (size.memoryMib + OVERHEAD_MIB) * MIB,
  pids: size.vcpus + THREADS,
  // One processor's time for each vCPU; half of one for the devices' thread.
  cpuMax: `${size.vcpus * CPU_PERIOD_US + CPU_PERIOD_US / 2} ${CPU_PERIOD_US}`,
  openFiles: 2048,
});
