/** QEMU's command lines for the `microvm` machine: one to make a template, one to clone it. Pure. */
import type { Accelerator, MachineSize } from '@instavm/core';
import { type DiskLimits, UNLIMITED } from '../host/disk-limits.ts';

export const QEMU_BINARY = 'qemu-system-x86_64';

/** Changes whenever a template made by older code could not be restored by this one. */
export const TEMPLATE_FORMAT = 1;

/** Names below a template's or an incarnation's directory, which is QEMU's working directory: socket paths stay short. */
export const FILES = {
  memory: 'memory',
  deviceState: 'state',
  overlay: 'overlay.ext4',
  control: 'control.sock',
  egress: 'egress.sock',
  qmp: 'qmp.sock',
  /** Where QEMU sends its state, and this process listens. */
  state: 'state.sock',
  stderr: 'stderr.log',
} as const;

/**
 * Files that QEMU is handed open, by descriptor: it may have a user of its own, who cannot walk to them. A clone reads its device state from one;
 * the others it opens again by the name that the kernel has for them.
 */
export const DESCRIPTORS = { deviceState: 3, kernel: 4, initramfs: 5, base: 6, memory: 7 } as const;
const handedOver = (name: keyof typeof DESCRIPTORS): string => `/proc/self/fd/${DESCRIPTORS[name]}`;

/** Translated code of one guest; the default would grow to a gigabyte. */
const TCG_CACHE_MIB = 96;
/** Kept in memory by QEMU; a guest that writes to its console without end fills nothing. */
const CONSOLE_RING_BYTES = 64 * 1024;

const KERNEL_COMMAND_LINE = [
  'console=ttyS0',
  // Warnings reach the console: the one about the TSC decides whether a boot is worth waiting for (console.ts).
  'loglevel=5',
  'panic=-1',
  'reboot=t',
  'rdinit=/init',
  'cgroup_no_v1=all',
  'random.trust_cpu=on',
  // No watchdog may distrust the TSC for the time that a clone spends frozen.
  'tsc=reliable',
].join(' ');

/**
 * What must be equal between a template and the VMM that restores it. Emulated, `rep movsb` goes byte by byte; a guest whose processor does not
 * praise it ("enhanced" and "fast short") copies in words, which takes a fifth to a third less of the host's time.
 */
export const cpuModel = (accelerator: Accelerator): string => (accelerator === 'kvm' ? 'host' : 'max,-erms,-fsrm');

type Machine = {
  readonly name: string;
  readonly size: MachineSize;
  readonly accelerator: Accelerator;
  readonly disk: DiskLimits;
  /** True while a template is made: its memory is the file. Clones map it privately. */
  readonly memoryShared: boolean;
};

/** QEMU's own limits of a drive, which it knows no word for to leave out. */
const throttling = ({ bytesPerSecond, operationsPerSecond }: DiskLimits): string =>
  Object.entries({ 'bps-total': bytesPerSecond, 'iops-total': operationsPerSecond })
    .filter(([, perSecond]) => Number.isFinite(perSecond))
    .map(([name, perSecond]) => `throttling.${name}=${Math.ceil(perSecond)},`)
    .join('');

function machineArguments(machine: Machine): string[] {
  const { size, accelerator, memoryShared } = machine;
  const limits = throttling(machine.disk);
  const accel = accelerator === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${TCG_CACHE_MIB}`;
  const memoryPath = memoryShared ? FILES.memory : handedOver('memory');
  const memory = `memory-backend-file,id=ram,size=${size.memoryMib}M,mem-path=${memoryPath}`;
  const sockets = (['control', 'egress', 'qmp'] as const).map(
    (id) => `socket,id=${id},path=${FILES[id]},server=on,wait=off`,
  );
  return [
    ...['-name', machine.name, '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-M', 'microvm,acpi=on,pcie=off,usb=off,isa-serial=on,rtc=on,memory-backend=ram', '-accel', accel],
    ...['-cpu', cpuModel(accelerator), '-smp', String(size.vcpus), '-m', `${size.memoryMib}M`],
    ...['-object', `${memory},share=${memoryShared ? 'on' : 'off'}`],
    ...['-kernel', handedOver('kernel'), '-initrd', handedOver('initramfs'), '-append', KERNEL_COMMAND_LINE],
    ...['-drive', `id=base,if=none,format=raw,readonly=on,file.locking=off,${limits}file=${handedOver('base')}`],
    ...['-device', 'virtio-blk-device,drive=base,serial=base'],
    ...['-drive', `id=overlay,if=none,format=raw,cache=unsafe,discard=unmap,${limits}file=${FILES.overlay}`],
    ...['-device', 'virtio-blk-device,drive=overlay,serial=overlay'],
    ...sockets.flatMap((socket) => ['-chardev', socket]),
    ...['-chardev', `ringbuf,id=console,size=${CONSOLE_RING_BYTES}`, '-serial', 'chardev:console'],
    ...['-mon', 'chardev=qmp,mode=control'],
    ...['-device', 'virtio-serial-device,max_ports=4'],
    ...[
      '-device',
      'virtserialport,chardev=control,name=control',
      '-device',
      'virtserialport,chardev=egress,name=egress',
    ],
    ...['-device', 'virtio-rng-device'],
    // It can start no program and gain no privilege.
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  ];
}

/** Boots from the images. A guest that ends is kept stopped, so that its console can still be read. */
export function templateArguments(machine: Omit<Machine, 'memoryShared' | 'disk'>): string[] {
  return [...machineArguments({ ...machine, disk: UNLIMITED, memoryShared: true }), '-no-shutdown'];
}

/** Starts from a template's memory and the device state, both handed over. */
export function cloneArguments(machine: Omit<Machine, 'memoryShared'>): string[] {
  return [...machineArguments({ ...machine, memoryShared: false }), '-incoming', 'defer'];
}
