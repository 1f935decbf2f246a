/**
 * A machine that stands for a KVM host: QEMU emulates a processor with AMD's virtualisation, in which KVM, Firecracker and the jailer run as
 * on hardware, only slowly. It runs one job and gives back its exit status, what it said, and the files that it left in /run/result.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runCommand } from '@instavm/images';

const QEMU = 'qemu-system-x86_64';
/** A busy host brings the first ticks too late for the kernel, which would then hold the timer for broken and panic: it is not to try. */
const TIMER = 'tsc=unstable clocksource=hpet no_timer_check';
const COMMAND_LINE = `console=ttyS0 loglevel=4 panic=-1 rdinit=/init random.trust_cpu=on ${TIMER} mitigations=off`;
const MEMORY_MIB = 3072;
const LOG_POLL_MS = 200;

export type Machine = {
  readonly kernelPath: string;
  readonly initramfsPath: string;
  /** In the order vda, vdb, vdc, vdd; only the first is written to, and what is written goes with the machine. */
  readonly disks: readonly string[];
  /** Keeps `console.log`, `job.log`, `qemu.log` and `result/`. */
  readonly directory: string;
  readonly limitMs: number;
  /** Called with what the job says, as it says it. */
  readonly onOutput?: (text: string) => void;
  /** Added to QEMU's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
};

/**
 * @returns the job's exit status, with its files in `result/` of the directory
 * @throws Error when the machine does not come to an end in time, or ends without a result; it is gone then, too
 */
export async function runMachine(machine: Machine): Promise<number> {
  const { directory, limitMs } = machine;
  machine.signal?.throwIfAborted();
  await mkdir(join(directory, 'result'), { recursive: true });
  const log = await open(join(directory, 'qemu.log'), 'w');
  await writeFile(join(directory, 'job.log'), '');
  const child = spawn('nice', ['-n', '5', QEMU, ...qemuArguments(machine)], {
    cwd: directory,
    env: { ...process.env, ...machine.env },
    stdio: ['ignore', log.fd, log.fd],
  });
  const kill = (): void => void child.kill('SIGKILL');
  // However this process ends, the machine ends with it.
  process.on('exit', kill);
  machine.signal?.addEventListener('abort', kill);
  // It may have been while the files were made.
  if (machine.signal?.aborted) kill();
  const timer = setTimeout(kill, limitMs);
  try {
    const ended = await Promise.all([outcome(child), follow(child, join(directory, 'job.log'), machine.onOutput)]);
    machine.signal?.throwIfAborted();
    return await resultOf(directory, ended[0], limitMs);
  } finally {
    clearTimeout(timer);
    process.off('exit', kill);
    machine.signal?.removeEventListener('abort', kill);
    await log.close();
  }
}

function qemuArguments({ kernelPath, initramfsPath, disks }: Machine): string[] {
  const drives = disks.flatMap((path, index) => [
    '-drive',
    `id=disk${index},if=none,format=raw,file=${path},${index === 0 ? 'snapshot=on,discard=unmap' : 'readonly=on'}`,
    '-device',
    `virtio-blk-pci,drive=disk${index}`,
  ]);
  return [
    ...['-name', 'instavm-level-1', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    // One processor: more of them make emulated virtualisation unreliable, and two would not be faster on two cores.
    ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'EPYC,+svm', '-smp', '1', '-m', String(MEMORY_MIB)],
    ...['-kernel', kernelPath, '-initrd', initramfsPath, '-append', COMMAND_LINE],
    ...drives,
    ...['-chardev', 'file,id=console,path=console.log', '-serial', 'chardev:console'],
    ...['-device', 'virtio-serial-pci'],
    ...['-chardev', 'file,id=log,path=job.log', '-device', 'virtserialport,chardev=log,name=log'],
    ...['-chardev', 'file,id=result,path=result.tar', '-device', 'virtserialport,chardev=result,name=result'],
    ...['-device', 'virtio-rng-pci'],
  ];
}

async function resultOf(directory: string, ended: string, limitMs: number): Promise<number> {
  const archive = join(directory, 'result.tar');
  const status = await runCommand('tar', ['-C', join(directory, 'result'), '-xf', archive]).then(
    () => readFile(join(directory, 'result/exit-status'), 'utf8'),
    () => undefined,
  );
  await rm(archive, { force: true });
  if (status !== undefined) return Number(status);
  const why = ended === 'SIGKILL' ? `was ended after ${limitMs / 1000} s` : `ended without a result (${ended})`;
  const console = await readFile(join(directory, 'console.log'), 'utf8').catch(() => '');
  throw new Error(`the nested machine ${why}; its logs are in ${directory}\n${console.slice(-4000)}`);
}

function outcome(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new Error(`${QEMU} could not be started: ${cause.message}`, { cause })));
    child.once('exit', (code, signal) => resolve(signal ?? `exit status ${code}`));
  });
}

/** Passes on what is appended to a file, until the process has ended. */
async function follow(
  child: ChildProcess,
  path: string,
  onOutput: ((text: string) => void) | undefined,
): Promise<void> {
  if (onOutput === undefined) return;
  let at = 0;
  for (let last = false; !last; ) {
    last = child.exitCode !== null || child.signalCode !== null;
    for await (const chunk of createReadStream(path, { start: at })) {
      at += (chunk as Buffer).length;
      onOutput(String(chunk));
    }
    if (!last) await sleep(LOG_POLL_MS);
  }
}
