/**
 * The disks of the machine that stands for a KVM host. What changes seldom is cached by its contents (the base image inside an ext4
 * filesystem, node_modules); sources and guest images are packed anew each time, which takes a second. None of it needs root.
 */
import { cp, link, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { type ArtifactCache, type ArtifactRecipe, GUEST_AGENT_PATH, runCommand, sha256OfFile } from '@instavm/images';
import { ROOT } from '../steps/paths.ts';
import type { FirecrackerBinaries } from './binaries.ts';

/** Of the disk that is written to: templates, clones and snapshots of the tests; sparse. */
const DATA_BYTES = 8 * 1024 ** 3;
/** Development tools of the repository that no test of the nested machine runs; they are most of node_modules. */
const UNUSED_MODULES = ['@biomejs', '@bufbuild/buf*', '@typescript', '@openai', 'openai', 'typescript', '@types'];
const SOURCES = [
  'packages',
  'apps',
  'tests',
  'bench',
  'spec',
  'scripts',
  'packaging',
  'package.json',
  'vitest.config.ts',
];

/** The guest's base image is the user space of the host, too: it is there anyway. */
export async function dataDisk(
  cache: ArtifactCache,
  images: GuestImages,
  progress: (m: string) => void,
): Promise<string> {
  const recipe: ArtifactRecipe = {
    kind: 'nested-data',
    // The directory's name holds the digest of what is in it.
    inputs: { revision: 2, base: basename(join(images.basePath, '..')), sizeBytes: DATA_BYTES },
    async build(directory, say, signal) {
      say('packing the base image into a disk for the nested tests');
      const content = join(directory, 'content');
      await linkOrCopy(images.basePath, join(content, 'level-1/base.erofs'));
      await linkOrCopy(images.blankOverlayPath, join(content, 'level-1/overlay.ext4'));
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
  /** What bash runs in `/opt/instavm`. */
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
  // Part of what the initramfs is found by.
  await cp(GUEST_AGENT_PATH, join(repository, relative(ROOT, GUEST_AGENT_PATH)));
  const inside = await packImages(images, join(tree, 'images'));
  await writeFile(join(tree, 'images.json'), JSON.stringify(inside));
  await cp(binaries.firecracker, join(tree, 'bin/firecracker'));
  await cp(binaries.jailer, join(tree, 'bin/jailer'));
  const image = join(directory, 'sources.erofs');
  await runCommand('mkfs.erofs', ['--quiet', image, tree]);
  await rm(tree, { recursive: true });
  return image;
}

/** Where setup's cache is inside: that of an installed daemon. */
const CACHE = '/var/lib/instavm/cache/images';
/** Of what is on the data disk already; the rest is copied. */
const ON_DATA_DISK: Readonly<Record<string, string>> = {
  basePath: '/var/level-1/base.erofs',
  blankOverlayPath: '/var/level-1/overlay.ext4',
};

/**
 * Puts the images' files and their manifests into `tree`, with a script that makes a cache of them inside, in which the daemon finds them as on
 * any host. The manifests hold times, which not every filesystem keeps to the nanosecond.
 * @returns the images as they are found inside
 */
async function packImages(images: GuestImages, tree: string): Promise<GuestImages> {
  const inside: Record<string, string> = { digest: images.digest };
  const script = ['set -e', `mkdir -p ${CACHE}`];
  for (const [name, path] of Object.entries(images)) {
    if (name === 'digest') continue;
    const directory = dirname(path);
    const artifact = basename(directory);
    script.push(`mkdir -p ${CACHE}/${artifact}`);
    for (const { file, mtimeMs } of await manifestsOf(directory, join(tree, artifact))) {
      const target = `${CACHE}/${artifact}/${file}`;
      script.push(`mkdir -p ${dirname(target)}`);
      const present = join(directory, file) === path ? ON_DATA_DISK[name] : undefined;
      if (present === undefined) await linkOrCopy(join(directory, file), join(tree, artifact, file));
      script.push(
        present === undefined ? `cp /level-1/images/${artifact}/${file} ${target}` : `ln ${present} ${target}`,
      );
      script.push(`touch -d @${seconds(mtimeMs)} ${target}`);
    }
    inside[name] = `${CACHE}/${artifact}/${basename(path)}`;
  }
  script.push(`cp /level-1/images/*.json ${CACHE}`, '');
  await writeFile(join(tree, 'cache.sh'), script.join('\n'));
  return inside as GuestImages;
}

/** As `stat` tells milliseconds, whose fraction has what a double can hold of the nanoseconds. */
const seconds = (ms: number): string =>
  `${Math.floor(ms / 1000)}.${String(Math.round((ms % 1000) * 1e6)).padStart(9, '0')}`;

/** Copies the manifests that name an artifact beside its directory in the tree. @returns its files */
async function manifestsOf(directory: string, target: string): Promise<{ file: string; mtimeMs: number }[]> {
  await mkdir(target, { recursive: true });
  const files = new Map<string, number>();
  for (const name of await readdir(dirname(directory))) {
    const isOfKind = name.endsWith('.json') && basename(directory).startsWith(name.slice(0, name.indexOf('@')));
    if (!isOfKind) continue;
    const text = await readFile(join(dirname(directory), name), 'utf8');
    const manifest = JSON.parse(text) as { directory: string; files: { path: string; mtimeMs: number }[] };
    if (manifest.directory !== basename(directory)) continue;
    await writeFile(join(dirname(target), name), text);
    for (const { path, mtimeMs } of manifest.files) files.set(path, mtimeMs);
  }
  return [...files].map(([file, mtimeMs]) => ({ file, mtimeMs }));
}

const isGenerated = (path: string): boolean => /\/(dist|target|__pycache__)$/.test(path);

async function linkOrCopy(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  await link(from, to).catch(() => cp(from, to));
}
