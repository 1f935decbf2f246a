/** Runs a job in a machine that stands for a KVM host. The parts are cached: a second run is at its job within seconds. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ArtifactCache, defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { type FirecrackerBinaries, firecrackerBinaries } from './binaries.ts';
import { dataDisk, modulesDisk, sourcesDisk } from './disks.ts';
import { HOST_KERNEL, hostInitramfs } from './initramfs.ts';
import { runMachine } from './machine.ts';
import { systemdDisk } from './systemd.ts';

export type NestedJob = {
  /** What bash runs in the repository's directory; standard output and error are the log, /run/result comes back. */
  readonly script: string;
  readonly limitMs: number;
  /** Gets the logs and `result/`. */
  readonly directory: string;
  readonly onOutput: (text: string) => void;
  readonly onProgress: (message: string) => void;
  /** Added to the environment of the machine's process. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
};

/** Firecracker and jailer are neither named nor to be had. */
export class FirecrackerUnavailable extends Error {
  override readonly name = 'FirecrackerUnavailable';

  constructor(cause: Error) {
    super(
      `no Firecracker for the nested tests: ${cause.message.split('\n', 1)[0]}; set FIRECRACKER_BIN and JAILER_BIN`,
      {
        cause,
      },
    );
  }
}

/** @returns the job's exit status. @throws FirecrackerUnavailable, Error as `runMachine` */
export async function runNested(job: NestedJob): Promise<number> {
  const cacheDirectory = defaultCacheDirectory(process.env);
  const cache = new ArtifactCache(join(cacheDirectory, 'images'));
  const progress = job.onProgress;
  const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
  const binaries = await firecrackerBinaries(cache, process.env, progress).catch(
    (cause: Error): FirecrackerBinaries => {
      throw new FirecrackerUnavailable(cause);
    },
  );
  const kernel = await cache.ensure(HOST_KERNEL, progress);
  const initramfs = await cache.ensure(await hostInitramfs(kernel), progress);
  const [data, modules] = [await dataDisk(cache, images, progress), await modulesDisk(cache, progress)];
  const systemd = await systemdDisk(cache, progress);
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
  try {
    progress('packing the sources');
    const sources = await sourcesDisk(scratch, { images, binaries, job: job.script });
    progress('starting the machine');
    return await runMachine({
      kernelPath: join(kernel.directory, 'vmlinuz'),
      initramfsPath: join(initramfs.directory, 'initramfs.cpio'),
      disks: [data, modules, sources, systemd],
      directory: job.directory,
      limitMs: job.limitMs,
      onOutput: job.onOutput,
      ...(job.env === undefined ? {} : { env: job.env }),
      ...(job.signal === undefined ? {} : { signal: job.signal }),
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
