/**
 * A content-addressed cache of build results on disk.
 *
 *     <root>/<kind>-<digest>/…               the files; the directory's name is the digest of what is in it
 *     <root>/<kind>@<recipe digest>.json     the manifest: which directory a recipe gave, with every file's size and digest
 *     <root>/.partial-<kind>-<pid>-<random>  a build under way
 *
 * A build writes into its own partial directory, is digested, renamed, and only then named by a manifest (written beside
 * and renamed too). So a reader sees a finished artifact or none, a killed build is redone, and an artifact that a running
 * VMM maps is never rewritten: a rebuild with other bytes gets another directory.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { removeTree } from './remove-tree.ts';

export type Progress = (message: string) => void;

/** Everything that decides the result of a build; equal inputs are never built twice. */
export type ArtifactInputs = Readonly<Record<string, string | number | readonly string[]>>;

export type ArtifactRecipe = {
  readonly kind: string;
  readonly inputs: ArtifactInputs;
  /** Fills the empty directory. */
  readonly build: (directory: string, progress: Progress, signal?: AbortSignal) => Promise<void>;
};

export type Artifact = {
  readonly directory: string /** Hex digest over names, sizes and contents. */;
  readonly digest: string;
};

const BLOCK_BYTES = 1024 * 1024;
/** Unit of `st_blocks`, whatever the filesystem's own block size. */
const STAT_BLOCK_BYTES = 512;

const FileEntry = z.object({
  path: z.string(),
  sizeBytes: z.number().int().nonnegative(),
  mtimeMs: z.number(),
  sha256Hex: z.string(),
});
const Manifest = z.object({
  format: z.literal(1),
  kind: z.string(),
  inputs: z.record(z.string(), z.union([z.string(), z.number(), z.array(z.string())])),
  directory: z.string().regex(/^[a-z-]+-[0-9a-f]{16}$/),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  files: z.array(FileEntry).min(1),
});
type Manifest = z.infer<typeof Manifest>;
type FileEntry = z.infer<typeof FileEntry>;

export class ArtifactCache {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /**
   * Finds a finished artifact without reading its contents: the manifest is there and every file still has the recorded
   * size and modification time.
   */
  async find(recipe: Pick<ArtifactRecipe, 'kind' | 'inputs'>): Promise<Artifact | undefined> {
    const manifest = await readManifest(this.#manifestPath(recipe));
    if (!manifest) return undefined;
    const directory = join(this.root, manifest.directory);
    for (const file of manifest.files) {
      const found = await stat(join(directory, file.path)).catch(absent);
      if (found?.size !== file.sizeBytes || found.mtimeMs !== file.mtimeMs) return undefined;
    }
    return { directory, digest: manifest.digest };
  }

  /** Finds the artifact or builds it. Two processes that build the same one do the work twice and end with one result. */
  async ensure(recipe: ArtifactRecipe, progress: Progress, signal?: AbortSignal): Promise<Artifact> {
    return (await this.find(recipe)) ?? (await this.#build(recipe, progress, signal));
  }

  async #build(recipe: ArtifactRecipe, progress: Progress, signal?: AbortSignal): Promise<Artifact> {
    await mkdir(this.root, { recursive: true });
    await this.#removeAbandonedBuilds();
    const partial = join(this.root, `.partial-${recipe.kind}-${process.pid}-${randomBytes(4).toString('hex')}`);
    try {
      await mkdir(partial);
      await recipe.build(partial, progress, signal);
      const files = await describeFiles(partial);
      if (files.length === 0) throw new Error(`building ${recipe.kind} produced no files`);
      const digest = contentDigest(files);
      const name = `${recipe.kind}-${digest.slice(0, 16)}`;
      const directory = join(this.root, name);
      const kept = await this.#publish(partial, directory, files);
      const manifest: Manifest = {
        format: 1,
        kind: recipe.kind,
        inputs: structuredClone(recipe.inputs) as Manifest['inputs'],
        directory: name,
        digest,
        files: kept,
      };
      await writeFileAtomically(this.#manifestPath(recipe), `${JSON.stringify(manifest, null, 2)}\n`);
      return { directory, digest };
    } finally {
      await removeTree(partial);
    }
  }

  /** Moves a build to its final name. When the same bytes are there already and whole, those stay and the build is dropped. */
  async #publish(partial: string, directory: string, files: FileEntry[]): Promise<FileEntry[]> {
    if (await renameUnlessPresent(partial, directory)) return files;
    const present = await describeFiles(directory);
    if (contentDigest(present) === contentDigest(files)) return present;
    // Moved aside rather than removed: a running VMM may still read it.
    await rename(directory, join(this.root, `.partial-damaged-${process.pid}-${randomBytes(4).toString('hex')}`));
    await rename(partial, directory);
    return files;
  }

  /** Removes partial directories, and manifests that were not renamed yet, whose process is gone. */
  async #removeAbandonedBuilds(): Promise<void> {
    for (const name of await readdir(this.root)) {
      const pid = /^(?:\.partial-[a-z-]+-|[a-z-]+@[0-9a-f]+\.json\.)(\d+)[-.][0-9a-f]{8}$/.exec(name)?.[1];
      if (pid === undefined || (await stat(`/proc/${pid}`).catch(absent))) continue;
      await removeTree(join(this.root, name));
    }
  }

  #manifestPath(recipe: Pick<ArtifactRecipe, 'kind' | 'inputs'>): string {
    const canonical = JSON.stringify(Object.entries(recipe.inputs).sort(([a], [b]) => (a < b ? -1 : 1)));
    const digest = createHash('sha256').update(canonical).digest('hex');
    return join(this.root, `${recipe.kind}@${digest.slice(0, 16)}.json`);
  }
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: BLOCK_BYTES }), hash);
  return hash.digest('hex');
}

/** A digest of a file with holes: over each block that has data, after its number. Hashing 4 GiB of zeros takes 15 s. */
async function sha256OfSparseFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  const block = Buffer.alloc(BLOCK_BYTES);
  const zeros = Buffer.alloc(BLOCK_BYTES);
  const file = await open(path);
  try {
    for (let index = 0; ; index += 1) {
      const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, index * BLOCK_BYTES);
      if (bytesRead === 0) return hash.digest('hex');
      const data = block.subarray(0, bytesRead);
      if (!data.equals(zeros.subarray(0, bytesRead))) hash.update(`${index}\n`).update(data);
    }
  } finally {
    await file.close();
  }
}

async function describeFiles(directory: string): Promise<FileEntry[]> {
  const files: FileEntry[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size, mtimeMs, blocks } = await stat(path);
    const sha256Hex = await (blocks * STAT_BLOCK_BYTES < size / 2 ? sha256OfSparseFile(path) : sha256OfFile(path));
    files.push({ path: relative(directory, path), sizeBytes: size, mtimeMs, sha256Hex });
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function contentDigest(files: readonly FileEntry[]): string {
  const hash = createHash('sha256');
  for (const file of files) hash.update(`${file.path}\0${file.sizeBytes}\0${file.sha256Hex}\n`);
  return hash.digest('hex');
}

/** @returns undefined when there is none, or when it is not one of ours: then the artifact is built again */
async function readManifest(path: string): Promise<Manifest | undefined> {
  const text = await readFile(path, 'utf8').catch(absent);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return Manifest.safeParse(value).data;
}

async function writeFileAtomically(path: string, text: string): Promise<void> {
  const beside = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    const file = await open(beside, 'wx');
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
  } finally {
    await rm(beside, { force: true });
  }
}

/** @returns false when something is at the target */
async function renameUnlessPresent(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOTEMPTY' || code === 'EEXIST') return false;
    throw error;
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
  return undefined;
}
