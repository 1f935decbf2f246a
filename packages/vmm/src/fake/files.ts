/** Files of the fake guest, below its directory. Not safe against races with what runs there: tests run there. */
import { spawn } from 'node:child_process';
import { createReadStream, createWriteStream, type Stats, watch as watchFs } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { finished } from 'node:stream/promises';
import { Code, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import {
  FileKind,
  type Files,
  type Target,
  type TarInRequest,
  type WatchEvent,
  WatchEvent_Kind,
  type WriteRequest,
} from '@instavm/agent-client';
import { failure, ofErrno } from './reason.ts';

const CHUNK_BYTES = 128 * 1024;
const DEFAULT_MODE = 0o644;

export function filesService(root: string): ServiceImpl<typeof Files> {
  const at = (target: Target | undefined, follow = true): Promise<string> => resolve(root, target, follow);
  return {
    stat: ({ target, follow }) => named(async () => infoOf(await at(target, follow), follow)),
    async *list({ target }) {
      const directory = await at(target);
      const names = (await named(() => fs.readdir(directory, { encoding: 'buffer' }))).sort(Buffer.compare);
      const inside = (name: Buffer): Buffer => Buffer.concat([Buffer.from(`${directory}/`), name]);
      yield { entries: await Promise.all(names.map((name) => infoOf(inside(name), false, name))) };
    },
    async *read({ target, offsetBytes, lengthBytes }) {
      const path = await at(target);
      const info = await named(() => infoOf(path, true));
      if (info.kind === FileKind.DIR) throw failure('is_a_directory', 'this is a directory');
      if (info.kind !== FileKind.FILE) throw failure('not_a_file', 'this is no regular file');
      yield { info, data: new Uint8Array() };
      const start = Number(offsetBytes);
      const end = lengthBytes === 0n ? Number.POSITIVE_INFINITY : start + Number(lengthBytes) - 1;
      for await (const data of createReadStream(path, { start, end, highWaterMark: CHUNK_BYTES })) {
        yield { data: new Uint8Array(data as Buffer) };
      }
    },
    write: (requests) => named(() => write(at, requests)),
    mkdir: ({ target, mode, parents }) =>
      named(async () => {
        const path = await at(target, false);
        await fs.mkdir(path, { recursive: parents });
        if (mode !== undefined) await fs.chmod(path, mode);
        return infoOf(path, false);
      }),
    remove: ({ target, recursive, force }) =>
      named(async () => {
        const path = await at(target, false);
        const found = await fs.lstat(path).catch(() => undefined);
        if (found === undefined && force) return {};
        if (found?.isDirectory() && !recursive) await fs.rmdir(path);
        else await fs.rm(path, { recursive });
        return {};
      }),
    rename: ({ from, to }) =>
      named(async () => {
        const path = await at(to, false);
        await fs.rename(await at(from, false), path);
        return infoOf(path, false);
      }),
    tarIn: (requests) => named(() => tarIn(at, requests)),
    async *tarOut({ target, exclude }) {
      const path = await at(target);
      const info = await named(() => infoOf(path, true));
      if (info.kind !== FileKind.DIR) throw failure('not_a_directory', 'this is no directory');
      const excluded = exclude.map((name) => `--exclude=./${name}`);
      const tar = spawn('tar', ['-C', path, ...excluded, '-cf', '-', '.'], { stdio: ['ignore', 'pipe', 'ignore'] });
      for await (const data of tar.stdout) yield { data: new Uint8Array(data as Buffer) };
    },
    watch: ({ target, recursive }, context) => watch(at, target, recursive, context),
  };
}

type Resolver = (target: Target | undefined, follow?: boolean) => Promise<string>;

/** Where a guest path lies on the host. Links are followed as the guest would: below its own root. */
async function resolve(root: string, target: Target | undefined, follow: boolean): Promise<string> {
  const path = target?.path ?? '';
  if (!path.startsWith('/') || path.includes('\0'))
    throw failure('invalid_path', 'the path is not absolute', Code.InvalidArgument);
  const full = join(root, path);
  const real = await realpathOf(follow ? full : dirname(full));
  const end = follow ? real : join(real, basename(full));
  if (end !== root && !end.startsWith(`${root}/`)) throw failure('path_escape', 'the path leaves the sandbox');
  const allowed = (target?.within ?? []).map((directory) => join(root, directory));
  if (allowed.length > 0 && !allowed.some((directory) => end === directory || end.startsWith(`${directory}/`)))
    throw failure('path_escape', 'the path leaves the directories it may lie in');
  return end;
}

/** Of what is there; what is not is kept as it was asked for. */
async function realpathOf(path: string): Promise<string> {
  try {
    return await fs.realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw ofErrno(error);
    return join(await realpathOf(dirname(path)), basename(path));
  }
}

async function named<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw ofErrno(error);
  }
}

async function infoOf(path: string | Buffer, follow: boolean, name = Buffer.from(basename(String(path)))) {
  const stats = await (follow ? fs.stat(path) : fs.lstat(path));
  return {
    name,
    kind: kindOf(stats),
    sizeBytes: BigInt(stats.size),
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    modifiedUnixNs: BigInt(Math.round(stats.mtimeMs)) * 1_000_000n,
    linkTarget: stats.isSymbolicLink() ? Buffer.from(await fs.readlink(path)) : Buffer.alloc(0),
  };
}

function kindOf(stats: Stats): FileKind {
  if (stats.isFile()) return FileKind.FILE;
  if (stats.isDirectory()) return FileKind.DIR;
  return stats.isSymbolicLink() ? FileKind.SYMLINK : FileKind.OTHER;
}

async function write(at: Resolver, requests: AsyncIterable<WriteRequest>) {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done || first.value.message.case !== 'open')
    throw failure('invalid_request', 'the first message must be open');
  const { target, mode, parents, append, modifiedUnixNs } = first.value.message.value;
  const path = await at(target);
  if (parents) await fs.mkdir(dirname(path), { recursive: true });
  const before = await fs.stat(path).catch(() => undefined);
  if (before?.isDirectory()) throw failure('is_a_directory', 'this is a directory');
  const partial = append ? path : join(dirname(path), `.partial-${crypto.randomUUID()}`);
  try {
    const file = await fs.open(partial, append ? 'a' : 'wx');
    try {
      for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
        if (next.value.message.case === 'data') await file.write(next.value.message.value);
      }
      await file.chmod(mode ?? (before === undefined ? DEFAULT_MODE : before.mode & 0o7777));
      if (modifiedUnixNs !== undefined) await file.utimes(new Date(), new Date(Number(modifiedUnixNs / 1_000_000n)));
    } finally {
      await file.close();
    }
    if (!append) await fs.rename(partial, path);
  } catch (error) {
    if (!append) await fs.rm(partial, { force: true });
    throw error;
  }
  return infoOf(path, true);
}

async function tarIn(at: Resolver, requests: AsyncIterable<TarInRequest>) {
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done || first.value.message.case !== 'open')
    throw failure('invalid_request', 'the first message must be open');
  const { target, maxBytes } = first.value.message.value;
  const path = await at(target);
  const isNew = (await fs.mkdir(path, { recursive: true })) !== undefined;
  const archive = `${path}.partial-${crypto.randomUUID()}`;
  try {
    const out = createWriteStream(archive);
    for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
      if (next.value.message.case === 'data') out.write(next.value.message.value);
    }
    out.end();
    await finished(out);
    if (maxBytes > 0n && BigInt(out.bytesWritten) > maxBytes)
      throw failure('archive_limit', 'the archive is too large');
    const tar = spawn('tar', [...(isNew ? [] : ['--no-overwrite-dir']), '-C', path, '-xvf', archive], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let listing = '';
    for await (const piece of tar.stdout) listing += String(piece);
    const code = tar.exitCode ?? (await new Promise<number | null>((done) => tar.once('exit', done)));
    if (code !== 0) throw failure('archive_invalid', 'the archive cannot be unpacked');
    const members = listing.split('\n').filter((name) => name !== '' && name !== './');
    return { entries: BigInt(members.length), sizeBytes: BigInt(out.bytesWritten) };
  } finally {
    await fs.rm(archive, { force: true });
  }
}

async function* watch(
  at: Resolver,
  target: Target | undefined,
  recursive: boolean,
  context: HandlerContext,
): AsyncGenerator<Pick<WatchEvent, 'kind' | 'path'>> {
  const path = await at(target);
  const waiting: Pick<WatchEvent, 'kind' | 'path'>[] = [];
  let wake = (): void => {};
  const watcher = watchFs(path, { recursive }, (kind, name) => {
    const changed = kind === 'change' ? WatchEvent_Kind.MODIFIED : WatchEvent_Kind.CREATED;
    waiting.push({ kind: changed, path: Buffer.from(name ?? '') });
    wake();
  });
  context.signal.addEventListener('abort', () => wake());
  try {
    yield { kind: WatchEvent_Kind.READY, path: new Uint8Array() };
    while (!context.signal.aborted) {
      const next = waiting.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    watcher.close();
  }
}
