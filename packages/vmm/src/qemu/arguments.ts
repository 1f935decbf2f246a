/** QEMU's command lines for the `microvm` machine: one to make a template, one to clone it. Pure. */
import type { Accelerator, GuestImages, MachineSize } from '@instavm/core';

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
  stderr: 'stderr.log',
} as const;

/** The descriptor on which a clone reads its device state. */
export const STATE_DESCRIPTOR = 3;

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

/** What must be equal between a template and the VMM that restores it. */
export const cpuModel = (accelerator: Accelerator): string => (accelerator === 'kvm' ? 'host' : 'max');

type Machine = {
  readonly name: string;
  readonly size: MachineSize;
  readonly accelerator: Accelerator;
  readonly images: Pick<GuestImages, 'kernelPath' | 'initramfsPath' | 'basePath'>;
  readonly memoryPath: string;
  /** True while a template is made: its memory is the file. Clones map it privately. */
  readonly memoryShared: boolean;
};

function machineArguments(machine: Machine): string[] {
  const { size, accelerator, images } = machine;
  const accel = accelerator === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${TCG_CACHE_MIB}`;
  const memory = `memory-backend-file,id=ram,size=${size.memoryMib}M,mem-path=${escaped(machine.memoryPath)}`;
  const sockets = (['control', 'egress', 'qmp'] as const).map(
    (id) => `socket,id=${id},path=${FILES[id]},server=on,wait=off`,
  );
  return [
    ...['-name', machine.name, '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-M', 'microvm,acpi=on,pcie=off,usb=off,isa-serial=on,rtc=on,memory-backend=ram', '-accel', accel],
    ...['-cpu', cpuModel(accelerator), '-smp', String(size.vcpus), '-m', `${size.memoryMib}M`],
    ...['-object', `${memory},share=${machine.memoryShared ? 'on' : 'off'}`],
    ...['-kernel', images.kernelPath, '-initrd', images.initramfsPath, '-append', KERNEL_COMMAND_LINE],
    ...['-drive', `id=base,if=none,format=raw,readonly=on,file.locking=off,file=${escaped(images.basePath)}`],
    ...['-device', 'virtio-blk-device,drive=base,serial=base'],
    ...['-drive', `id=overlay,if=none,format=raw,cache=unsafe,discard=unmap,file=${FILES.overlay}`],
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
  ];
}

/** Boots from the images. A guest that ends is kept stopped, so that its console can still be read. */
export function templateArguments(machine: Omit<Machine, 'memoryShared' | 'memoryPath'>): string[] {
  return [...machineArguments({ ...machine, memoryPath: FILES.memory, memoryShared: true }), '-no-shutdown'];
}

/** Starts from a template's memory and the device state on {@link STATE_DESCRIPTOR}; can start no program of its own. */
export function cloneArguments(machine: Omit<Machine, 'memoryShared'>): string[] {
  return [
    ...machineArguments({ ...machine, memoryShared: false }),
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-incoming', 'defer'],
  ];
}

/** QEMU's option syntax doubles a comma inside a value. */
const escaped = (path: string): string => path.replaceAll(',', ',,');
