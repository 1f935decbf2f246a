/** A manifest's entries as one tar stream, unpacked in the guest in one request. */
import {
  type Entry,
  isMount,
  type Manifest,
  permissionsForSandboxEntry,
  SandboxUnsupportedFeatureError,
} from '@openai/agents-core/sandbox';
import { type Header, type Pack, pack } from 'tar-stream';
import type { Sandbox } from '../sandbox.ts';
import { shellQuote } from './internals.ts';
import { type LocalFileSource, type LocalTree, localFileSource, localTree } from './local-sources.ts';

type TarHeader = Partial<Header> & Pick<Header, 'name'>;

type Member =
  | { readonly kind: 'dir'; readonly name: string; readonly mode: number; readonly group: string | undefined }
  | {
      readonly kind: 'file';
      readonly name: string;
      readonly mode: number;
      readonly group: string | undefined;
      readonly contents: Uint8Array | LocalFileSource;
    };

/** Refuses what this version cannot do, before a sandbox is made. @throws SandboxUnsupportedFeatureError that names the path */
export function assertSupported(manifest: Manifest): void {
  for (const { logicalPath, entry } of manifest.iterEntries()) {
    if (isMount(entry))
      throw new SandboxUnsupportedFeatureError(`${logicalPath}: mounts are not available on this server yet`, {
        feature: 'mount',
        path: logicalPath,
      });
    if (entry.type === 'git_repo') {
      throw new SandboxUnsupportedFeatureError(
        `${logicalPath}: git_repo entries are not available yet; use local_dir on a clone`,
        {
          feature: 'git_repo',
          path: logicalPath,
        },
      );
    }
  }
}

/** Users and groups first, then the root, then every entry. */
export async function materializeManifest(
  sandbox: Sandbox,
  manifest: Manifest,
  owner: string | undefined,
): Promise<void> {
  await makeAccounts(sandbox, manifest);
  // With users in the manifest commands may run as any of them, and they need a place to work.
  await sandbox.files.mkdir(manifest.root, { parents: true, ...(manifest.users.length > 0 ? { mode: 0o777 } : {}) });
  await materializeEntries(sandbox, manifest, manifest.validatedEntries(), owner);
}

/** @param entries by path relative to the manifest's root */
export async function materializeEntries(
  sandbox: Sandbox,
  manifest: Manifest,
  entries: Readonly<Record<string, Entry>>,
  owner: string | undefined,
): Promise<void> {
  const members: Member[] = [];
  for (const [path, entry] of Object.entries(entries)) members.push(...(await membersOf(path, entry, manifest)));
  if (members.length === 0) return;
  const archive = pack();
  let unpacked: { readonly reason: unknown } | undefined;
  const packing = packMembers(archive, members, owner ?? 'root').catch((reason: unknown) => {
    // An upload that fails ends the archive, and with it the packing.
    if ((archive as Pack & { readonly destroying: boolean }).destroying) return;
    unpacked = { reason };
    archive.destroy(reason as Error);
  });
  const sending = sandbox.files.unpackTar(manifest.root, archive as AsyncIterable<Uint8Array>, {
    within: [manifest.root],
  });
  // The packing's own error says more than the broken upload that follows from it.
  const [, sent] = await Promise.allSettled([packing, sending]);
  if (unpacked !== undefined) throw unpacked.reason;
  if (sent.status === 'rejected') throw sent.reason;
}

async function membersOf(path: string, entry: Entry, manifest: Manifest): Promise<Member[]> {
  const permissions = permissionsForSandboxEntry(entry.permissions);
  const mode = permissions.toMode() & 0o1777;
  const group = entry.group?.name;
  switch (entry.type) {
    case 'file':
      return [
        {
          kind: 'file',
          name: path,
          mode,
          group,
          contents: typeof entry.content === 'string' ? Buffer.from(entry.content) : entry.content,
        },
      ];
    case 'local_file':
      return [
        { kind: 'file', name: path, mode, group, contents: await localFileSource(entry.src, manifest.extraPathGrants) },
      ];
    case 'local_dir':
      return [
        { kind: 'dir', name: path, mode, group },
        ...treeMembers(path, await localTree(entry.src, manifest.extraPathGrants), mode, group),
      ];
    case 'dir': {
      const members: Member[] = [{ kind: 'dir', name: path, mode, group }];
      for (const [name, child] of Object.entries(entry.children ?? {}))
        members.push(...(await membersOf(`${path}/${name}`, child, manifest)));
      return members;
    }
    default:
      throw new SandboxUnsupportedFeatureError(`${path}: entries of type ${entry.type} are not available`, {
        feature: entry.type,
        path,
      });
  }
}

function treeMembers(path: string, trees: readonly LocalTree[], mode: number, group: string | undefined): Member[] {
  return trees.flatMap((tree): Member[] => {
    const name = `${path}/${tree.name}`;
    if (tree.kind === 'file') return [{ kind: 'file', name, mode, group, contents: tree.source }];
    return [{ kind: 'dir', name, mode, group }, ...treeMembers(name, tree.children, mode, group)];
  });
}

async function packMembers(archive: Pack, members: readonly Member[], owner: string): Promise<void> {
  for (const member of members) {
    const { name, mode, group } = member;
    const header: TarHeader = { name, mode, uname: owner, ...(group === undefined ? {} : { gname: group }) };
    if (member.kind === 'dir') {
      await added(archive, { ...header, type: 'directory' }, undefined);
    } else if (member.contents instanceof Uint8Array) {
      await added(archive, { ...header, type: 'file', size: member.contents.length }, member.contents);
    } else {
      await addedStream(
        archive,
        { ...header, type: 'file', size: member.contents.sizeBytes },
        member.contents.contents(),
      );
    }
  }
  archive.finalize();
}

function added(archive: Pack, header: TarHeader, contents: Uint8Array | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    // It tells of the archive's end by its callback, and as an error that nobody may leave unheard.
    archive
      .entry(header, Buffer.from(contents ?? []), (error) => (error ? reject(error) : resolve()))
      .on('error', reject);
  });
}

async function addedStream(archive: Pack, header: TarHeader, contents: AsyncIterable<Uint8Array>): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    let goOn = (): void => {};
    const entry = archive.entry(header, (error) => (error ? reject(error) : resolve()));
    entry
      .on('error', reject)
      .on('drain', () => goOn())
      .on('close', () => goOn());
    const feed = async (): Promise<void> => {
      for await (const chunk of contents) {
        if (!entry.write(chunk) && !entry.destroyed)
          await new Promise<void>((resume) => {
            goOn = resume;
          });
        if (entry.destroyed) return;
      }
      entry.end(undefined);
    };
    feed().catch(reject);
  });
  await done;
}

/** Idempotent: an account that is there is left as it is. */
async function makeAccounts(sandbox: Sandbox, manifest: Manifest): Promise<void> {
  const quote = (name: string): string => shellQuote(name);
  const lines = [
    ...manifest.groups.map(({ name }) => `getent group ${quote(name)} >/dev/null || groupadd -- ${quote(name)}`),
    ...[...manifest.users, ...manifest.groups.flatMap(({ users = [] }) => users)].map(
      ({ name }) =>
        `id -u -- ${quote(name)} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash -- ${quote(name)}`,
    ),
    ...manifest.groups.flatMap(({ name, users = [] }) =>
      users.map((user) => `usermod -aG ${quote(name)} -- ${quote(user.name)}`),
    ),
  ];
  if (lines.length === 0) return;
  const made = await sandbox.run(`set -e\n${lines.join('\n')}`, { cwd: '/' });
  if (made.exitCode !== 0)
    throw new Error(`users and groups of the manifest could not be made: ${made.stderrText.trim()}`);
}
