/** Files of the machine that runs the agent, read for a manifest: only from allowed directories, never through a symbolic link. */
import { constants, type Stats } from 'node:fs';
import { lstat, open, readdir, realpath } from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
import {
  SandboxLocalDirReadError,
  SandboxLocalFileReadError,
  type SandboxPathGrant,
} from '@openai/agents-core/sandbox';

export type LocalFileSource = {
  readonly path: string;
  readonly sizeBytes: number;
  contents(): AsyncGenerator<Uint8Array>;
};
export type LocalTree =
  | { readonly kind: 'dir'; readonly name: string; readonly children: LocalTree[] }
  | { readonly kind: 'file'; readonly name: string; readonly source: LocalFileSource };

/** @throws SandboxLocalFileReadError */
export async function localFileSource(src: string, grants: readonly SandboxPathGrant[]): Promise<LocalFileSource> {
  const refuse = (why: string): never => {
    throw new SandboxLocalFileReadError(`local file ${src}: ${why}`, { src });
  };
  const path = await allowedPath(src, grants).catch((error: Error) => refuse(error.message));
  const before = await lstat(path).catch(() => refuse('does not exist'));
  if (!before.isFile()) refuse(before.isSymbolicLink() ? 'is a symbolic link' : 'is not a regular file');
  return { path, sizeBytes: before.size, contents: () => readSame(path, before, refuse) };
}

/** Opens without following, and makes sure that it is the file that was looked at. */
async function* readSame(path: string, before: Stats, refuse: (why: string) => never): AsyncGenerator<Uint8Array> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: Error) =>
    refuse(error.message),
  );
  try {
    const now = await handle.stat();
    if (now.ino !== before.ino || now.dev !== before.dev || now.size !== before.size)
      refuse('changed while it was read');
    for await (const chunk of handle.createReadStream({ autoClose: false })) yield chunk as Uint8Array;
  } finally {
    await handle.close();
  }
}

/** @throws SandboxLocalDirReadError, also for a symbolic link anywhere inside */
export async function localTree(src: string, grants: readonly SandboxPathGrant[]): Promise<LocalTree[]> {
  const refuse = (why: string): never => {
    throw new SandboxLocalDirReadError(`local directory ${src}: ${why}`, { src });
  };
  const path = await allowedPath(src, grants).catch((error: Error) => refuse(error.message));
  const found = await lstat(path).catch(() => refuse('does not exist'));
  if (!found.isDirectory()) refuse(found.isSymbolicLink() ? 'is a symbolic link' : 'is not a directory');
  const walk = async (directory: string): Promise<LocalTree[]> => {
    const trees: LocalTree[] = [];
    for (const entry of (await readdir(directory, { withFileTypes: true })).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const child = join(directory, entry.name);
      if (entry.isSymbolicLink()) refuse(`${relative(path, child)} is a symbolic link`);
      if (entry.isDirectory()) trees.push({ kind: 'dir', name: entry.name, children: await walk(child) });
      else if (entry.isFile())
        trees.push({ kind: 'file', name: entry.name, source: await localFileSource(child, grants) });
      else refuse(`${relative(path, child)} is neither a file nor a directory`);
    }
    return trees;
  };
  return walk(path);
}

async function allowedPath(src: string, grants: readonly SandboxPathGrant[]): Promise<string> {
  const path = resolve(src);
  const roots = [process.cwd(), ...grants.map((grant) => grant.hostPath ?? grant.path)];
  const root = roots.find((candidate) => isWithin(path, candidate));
  if (root === undefined) throw new Error('lies outside the working directory and every granted path');
  // The allowed directory itself may be reached through links; nothing below it may.
  const real = join(await realpath(root), relative(root, path));
  if ((await realpath(path).catch(() => real)) !== real) throw new Error('is reached through a symbolic link');
  return real;
}

function isWithin(path: string, root: string): boolean {
  const rest = relative(root, path);
  return rest === '' || (!rest.startsWith('..') && !isAbsolute(rest));
}
