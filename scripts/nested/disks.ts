/**
 * The disks of the machine that stands for a KVM host. What changes seldom is cached by its contents (the base image inside an ext4
 * filesystem, node_modules); sources and guest images are packed anew each time, which takes a second. None of it needs root.
 */
import { cp, link, mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { type ArtifactCache, type ArtifactRecipe, runCommand, sha256OfFile } from '@instavm/images';
import { ROOT } from '../steps/paths.ts';
import type { FirecrackerBinaries } from './binaries.ts';

/** Of the disk that is written to: templates, clones and snapshots of the tests; sparse. */
const DATA_BYTES = 8 * 1024 ** 3;
/** Development tools of the repository that no test of the nested machine runs; they are most of node_modules. */
const UNUSED_MODULES = ['@biomejs', '@bufbuild/buf*', '@typescript', '@openai', 'openai', 'typescript', '@types'];
const SOURCES = ['packages', 'apps', 'tests', 'spec', 'scripts', 'package.json', 'vitest.config.ts'];

/** The guest's base image is the user space of the host, too: it is there anyway. */
export async function dataDisk(
  cache: ArtifactCache,
  images: GuestImages,
  progress: (m: string) => void,
): Promise<string> {
  const recipe: ArtifactRecipe = {
    kind: 'nested-data',
    // The directory's name holds the digest of what is in it.
    inputs: { revision: 1, base: basename(join(images.basePath, '..')), sizeBytes: DATA_BYTES },
    async build(directory, say, signal) {
      say('packing the base image into a disk for the nested tests');
      const content = join(directory, 'content');
      await mkdir(content);
      await linkOrCopy(images.basePath, join(content, 'base.erofs'));
      await linkOrCopy(images.blankOverlayPath, join(content, 'overlay.ext4'));
      const image = join(directory, 'data.ext4');
      await writeFile(image, '');
      await truncate(image, DATA_BYTES);
      const options = ['-q', '-F', '-t', 'ext4', '-m', '0', '-J', 'size=8', '-E', 'root_owner=0:0', '-d', content];
      await runCommand('mke2fs', [...options, image], { signal });
      await rm(content, { recursive: true });
    },
  };
  return join((await cache.ensure(recipe, progress)).directory, 'data.ext4');
}

export async function modulesDisk(cache: ArtifactCache, progress: (message: string) => void): Promise<string> {
  const recipe: ArtifactRecipe = {
    kind: 'nested-modules',
    inputs: { revision: 1, lock: await sha256OfFile(join(ROOT, 'package-lock.json')), unused: UNUSED_MODULES },
    async build(directory, say, signal) {
      say('packing node_modules for the nested tests');
      const tree = join(ROOT, 'node_modules');
      const excluded = UNUSED_MODULES.map((name) => `--exclude-regex=^${name.replaceAll('*', '.*')}(/|$)`);
      await runCommand('mkfs.erofs', ['--quiet', ...excluded, join(directory, 'modules.erofs'), tree], { signal });
    },
  };
  return join((await cache.ensure(recipe, progress)).directory, 'modules.erofs');
}

export type Sources = {
  readonly images: GuestImages;
  readonly binaries: FirecrackerBinaries;
  /** What bash runs in `/level-1/repository`. */
  readonly job: string;
};

/** Makes `sources.erofs` in `directory`. */
export async function sourcesDisk(directory: string, { images, binaries, job }: Sources): Promise<string> {
  const tree = join(directory, 'sources');
  const repository = join(tree, 'repository');
  await mkdir(join(tree, 'images'), { recursive: true });
  for (const name of SOURCES)
    await cp(join(ROOT, name), join(repository, name), { recursive: true, filter: (path) => !isGenerated(path) });
  await mkdir(join(repository, 'node_modules'));
  await cp(join(import.meta.dirname, 'level-1/init.sh'), join(tree, 'init.sh'));
  await writeFile(join(tree, 'job.sh'), job);
  await linkOrCopy(images.kernelPath, join(tree, 'images/vmlinuz'));
  await linkOrCopy(images.kernelElfPath, join(tree, 'images/vmlinux'));
  await linkOrCopy(images.initramfsPath, join(tree, 'images/initramfs.cpio'));
  const inside: GuestImages = {
    kernelPath: '/level-1/images/vmlinuz',
    kernelElfPath: '/level-1/images/vmlinux',
    initramfsPath: '/level-1/images/initramfs.cpio',
    basePath: '/data/base.erofs',
    blankOverlayPath: '/data/overlay.ext4',
    digest: images.digest,
  };
  await writeFile(join(tree, 'images.json'), JSON.stringify(inside));
  await cp(binaries.firecracker, join(tree, 'bin/firecracker'));
  await cp(binaries.jailer, join(tree, 'bin/jailer'));
  const image = join(directory, 'sources.erofs');
  await runCommand('mkfs.erofs', ['--quiet', image, tree]);
  await rm(tree, { recursive: true });
  return image;
}

const isGenerated = (path: string): boolean => /\/(dist|target|__pycache__)$/.test(path);

async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(from, to).catch(() => cp(from, to));
}
