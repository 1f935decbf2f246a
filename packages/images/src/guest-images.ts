/** The files that a template is made from: made by setup, found by the daemon. */

import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { type Artifact, ArtifactCache, type Progress } from './artifact-cache.ts';
import { baseRecipe } from './base-image.ts';
import { initramfsRecipe } from './initramfs.ts';
import { kernelRecipe } from './kernel.ts';
import { kernelElfRecipe } from './kernel-elf.ts';
import { overlayRecipe } from './overlay.ts';

/** Where `cargo build --release` in `guest/agent` leaves the guest agent. */
export const GUEST_AGENT_PATH = resolve(
  import.meta.dirname,
  '../../../guest/agent/target/x86_64-unknown-linux-gnu/release/instavm-agent',
);

export type GuestImagesLocation = {
  /** The machine's cache directory; the images live below it in `images`. */
  readonly cacheDirectory: string;
  readonly agentPath: string;
};

/** Says which image is not there and which command makes it. */
export class MissingGuestImages extends Error {
  override readonly name = 'MissingGuestImages';

  constructor(what: string, options?: ErrorOptions) {
    super(`${what} is missing; run: npm run setup`, options);
  }
}

/**
 * Builds what is missing: about a minute and a half the first time, a few milliseconds when all is there.
 * @throws Error with the failed program's last lines; what was finished before stays finished
 */
export async function ensureGuestImages(
  location: GuestImagesLocation,
  progress: Progress,
  signal?: AbortSignal,
): Promise<GuestImages> {
  const cache = imageCache(location);
  const kernel = await cache.ensure(kernelRecipe, progress, signal);
  const kernelElf = await cache.ensure(kernelElfRecipe(kernel), progress, signal);
  const overlay = await cache.ensure(overlayRecipe, progress, signal);
  const base = await cache.ensure(baseRecipe, progress, signal);
  const initramfs = await cache.ensure(await initramfsRecipe(kernel, location.agentPath), progress, signal);
  return guestImages({ kernel, kernelElf, overlay, base, initramfs });
}

/** Whether `ensureGuestImages` would ask apt for packages. */
export async function guestImagesNeedDownload(location: GuestImagesLocation): Promise<boolean> {
  const cache = imageCache(location);
  return !(await cache.find(kernelRecipe)) || !(await cache.find(baseRecipe));
}

/**
 * Finds the images without building any.
 * @throws MissingGuestImages
 */
export async function locateGuestImages(location: GuestImagesLocation): Promise<GuestImages> {
  const cache = imageCache(location);
  const found = async (what: string, artifact: Promise<Artifact | undefined>): Promise<Artifact> => {
    const result = await artifact;
    if (!result) throw new MissingGuestImages(`the guest's ${what}`);
    return result;
  };
  const kernel = await found('kernel', cache.find(kernelRecipe));
  const kernelElf = await found('unpacked kernel', cache.find(kernelElfRecipe(kernel)));
  const overlay = await found('blank overlay', cache.find(overlayRecipe));
  const base = await found('base image', cache.find(baseRecipe));
  const recipe = await initramfsRecipe(kernel, location.agentPath).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT' ? new MissingGuestImages('the guest agent', { cause }) : cause;
  });
  const initramfs = await found('initramfs', cache.find(recipe));
  return guestImages({ kernel, kernelElf, overlay, base, initramfs });
}

function imageCache(location: GuestImagesLocation): ArtifactCache {
  return new ArtifactCache(join(location.cacheDirectory, 'images'));
}

function guestImages(
  parts: Readonly<Record<'kernel' | 'kernelElf' | 'overlay' | 'base' | 'initramfs', Artifact>>,
): GuestImages {
  const digest = createHash('sha256');
  for (const part of [parts.kernel, parts.initramfs, parts.base, parts.overlay]) digest.update(part.digest);
  return {
    kernelPath: join(parts.kernel.directory, 'vmlinuz'),
    kernelElfPath: join(parts.kernelElf.directory, 'vmlinux'),
    initramfsPath: join(parts.initramfs.directory, 'initramfs.cpio'),
    basePath: join(parts.base.directory, 'base.erofs'),
    blankOverlayPath: join(parts.overlay.directory, 'overlay.ext4'),
    digest: digest.digest('hex'),
  };
}
