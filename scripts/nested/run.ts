/** Runs a job in a machine that stands for a KVM host. The parts are cached: a second run is at its job within seconds. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ArtifactCache, defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { firecrackerBinaries } from './binaries.ts';
import { dataDisk, modulesDisk, sourcesDisk } from './disks.ts';
import { HOST_KERNEL, hostInitramfs } from './initramfs.ts';
import { runMachine } from './machine.ts';

export type NestedJob = {
  /** What bash runs in the repository's directory; standard output and error are the log, /run/result comes back. */
  readonly script: string;
  readonly limitMs: number;
  /** Gets the logs and `result/`. */
  readonly directory: string;
  readonly onOutput: (text: string) => void;
  readonly onProgress: (message: string) => void;
  readonly signal?: AbortSignal;
};

/** @returns the job's exit status. @throws Error as `runMachine`, or when a part cannot be made */
export async function runNested(job: NestedJob): Promise<number> {
  const cacheDirectory = defaultCacheDirectory(process.env);
  const cache = new ArtifactCache(join(cacheDirectory, 'images'));
  const progress = job.onProgress;
  const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
  const binaries = await firecrackerBinaries(cache, process.env, progress);
  const kernel = await cache.ensure(HOST_KERNEL, progress);
  const initramfs = await cache.ensure(await hostInitramfs(kernel), progress);
  const [data, modules] = [await dataDisk(cache, images, progress), await modulesDisk(cache, progress)];
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
  try {
    progress('packing the sources');
    const sources = await sourcesDisk(scratch, { images, binaries, job: job.script });
    progress('starting the machine');
    return await runMachine({
      kernelPath: join(kernel.directory, 'vmlinuz'),
      initramfsPath: join(initramfs.directory, 'initramfs.cpio'),
      disks: [data, modules, sources],
      directory: job.directory,
      limitMs: job.limitMs,
      onOutput: job.onOutput,
      ...(job.signal === undefined ? {} : { signal: job.signal }),
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
