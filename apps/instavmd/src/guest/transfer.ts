/** Files between HTTP and the guest, as streams: what the slower side takes is what the faster side sends. */
import type { FileInfo as AgentFileInfo, ReadRequest, TarInResponse, TarOutRequest } from '@instavm/agent-client';
import { FileKind } from '@instavm/agent-client';
import { type FileInfo, InstaVMError } from '@instavm/wire';
import { guestError } from './errors.ts';
import type { Guest } from './guest.ts';

/** One gRPC message to the guest. */
const CHUNK_BYTES = 256 * 1024;
/** A healthy guest has opened a file long before; a hung one must not hold its reader for ever. */
const FIRST_ANSWER_DEADLINE_MS = 60_000;

export type Target = { path: string; user?: string | undefined; within?: string[] | undefined };

export const targetOf = ({ path, user, within }: Target) => ({ path, user: user ?? '', within: within ?? [] });

export type WriteOptions = {
  readonly target: Target;
  readonly mode?: number | undefined;
  readonly parents?: boolean | undefined;
  readonly owner?: string | undefined;
  readonly group?: string | undefined;
  readonly append?: boolean | undefined;
  readonly modifiedAt?: Date | undefined;
};

export async function writeFile(
  guest: Guest,
  options: WriteOptions,
  contents: AsyncGenerator<Uint8Array>,
  signal: AbortSignal,
): Promise<AgentFileInfo> {
  const { target, mode, parents = false, owner = '', group = '', append = false, modifiedAt } = options;
  const attributes = {
    ...(mode === undefined ? {} : { mode }),
    ...(modifiedAt === undefined ? {} : { modifiedUnixNs: BigInt(modifiedAt.getTime()) * 1_000_000n }),
  };
  const open = { target: targetOf(target), parents, owner, group, append, ...attributes };
  return await upload((messages, options) => guest.agent.files.write(messages, options), open, contents, signal);
}

export type UnpackOptions = {
  readonly target: Target;
  readonly owner?: string | undefined;
  readonly group?: string | undefined;
  readonly maxBytes?: number | undefined;
  readonly maxEntries?: number | undefined;
};

export function unpackTar(
  guest: Guest,
  options: UnpackOptions,
  archive: AsyncGenerator<Uint8Array>,
  signal: AbortSignal,
): Promise<TarInResponse> {
  const { target, owner = '', group = '', maxBytes = 0, maxEntries = 0 } = options;
  const open = { target: targetOf(target), owner, group, maxBytes: BigInt(maxBytes), maxEntries: BigInt(maxEntries) };
  return upload((messages, options) => guest.agent.files.tarIn(messages, options), open, archive, signal);
}

type Message<Open> = { message: { case: 'open'; value: Open } | { case: 'data'; value: Uint8Array<ArrayBuffer> } };

/** When the source fails the call is cancelled, so the guest discards what it has. */
async function upload<Open, Answer>(
  call: (messages: AsyncIterable<Message<Open>>, options: { signal: AbortSignal }) => Promise<Answer>,
  open: Open,
  source: AsyncGenerator<Uint8Array>,
  signal: AbortSignal,
): Promise<Answer> {
  const stop = new AbortController();
  let sourceError: unknown;
  // Only what the source throws is its failure: a call that the guest ended early throws into these generators too.
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = await source.next().catch((error: unknown) => {
        sourceError = error;
        stop.abort();
        throw error;
      });
      if (piece.done) return;
      yield piece.value;
    }
  }
  async function* messages(): AsyncGenerator<Message<Open>> {
    yield { message: { case: 'open', value: open } };
    for await (const value of inChunks(pieces())) yield { message: { case: 'data', value } };
  }
  try {
    return await call(messages(), { signal: AbortSignal.any([stop.signal, signal]) });
  } catch (error) {
    if (sourceError === undefined) throw guestError(error);
    throw new InstaVMError('malformed_request', 'the body ended before it was complete', { cause: sourceError });
  } finally {
    // A guest that answered early leaves the rest unread.
    source.return(undefined).catch(() => {});
  }
}

/** What arrives in small pieces leaves in large ones: a message costs an emulated guest more than its bytes do. */
async function* inChunks(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let chunk = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  for await (const piece of source) {
    for (let at = 0; at < piece.length; ) {
      const taken = piece.subarray(at, at + CHUNK_BYTES - filled);
      chunk.set(taken, filled);
      at += taken.length;
      filled += taken.length;
      if (filled < CHUNK_BYTES) continue;
      yield chunk;
      chunk = new Uint8Array(CHUNK_BYTES);
      filled = 0;
    }
  }
  if (filled > 0) yield chunk.subarray(0, filled);
}

/** Opens a file for reading. The first answer has arrived when this resolves, so a missing file is an error here. */
export async function readFile(
  guest: Guest,
  request: { target: Target; offset?: number | undefined; length?: number | undefined; signal: AbortSignal },
): Promise<{ info: AgentFileInfo; contents: AsyncGenerator<Uint8Array> }> {
  const message: Pick<ReadRequest, 'offsetBytes' | 'lengthBytes'> = {
    offsetBytes: BigInt(request.offset ?? 0),
    lengthBytes: BigInt(request.length ?? 0),
  };
  const stop = new AbortController();
  const answers = guest.agent.files
    .read({ target: targetOf(request.target), ...message }, { signal: AbortSignal.any([stop.signal, request.signal]) })
    [Symbol.asyncIterator]();
  const first = await firstOf(answers);
  async function* contents(): AsyncGenerator<Uint8Array> {
    try {
      if (first.data.length > 0) yield first.data;
      for (let next = await answers.next(); !next.done; next = await answers.next()) yield next.value.data;
    } finally {
      stop.abort();
    }
  }
  if (first.info === undefined) throw guestError(new Error('the guest sent contents without saying of what'));
  return { info: first.info, contents: contents() };
}

/** Packs a directory; a missing one is an error here, not in the middle of the stream. */
export async function packTar(
  guest: Guest,
  target: Target,
  exclude: string[],
  signal: AbortSignal,
): Promise<AsyncGenerator<Uint8Array>> {
  const stop = new AbortController();
  const message: Pick<TarOutRequest, 'exclude'> = { exclude };
  const answers = guest.agent.files
    .tarOut({ target: targetOf(target), ...message }, { signal: AbortSignal.any([stop.signal, signal]) })
    [Symbol.asyncIterator]();
  const first = await firstOf(answers);
  async function* archive(): AsyncGenerator<Uint8Array> {
    try {
      yield first.data;
      for (let next = await answers.next(); !next.done; next = await answers.next()) yield next.value.data;
    } finally {
      stop.abort();
    }
  }
  return archive();
}

/** @throws guest_unresponsive, guest errors */
export async function firstOf<T>(answers: AsyncIterator<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new InstaVMError('guest_unresponsive', 'the sandbox did not answer in time')),
      FIRST_ANSWER_DEADLINE_MS,
    );
  });
  try {
    const first = await Promise.race([answers.next(), late]);
    if (first.done) throw new InstaVMError('guest_protocol', 'the guest answered nothing');
    return first.value;
  } catch (error) {
    throw guestError(error);
  } finally {
    clearTimeout(timer);
  }
}

const KINDS: Readonly<Record<FileKind, FileInfo['kind']>> = {
  [FileKind.UNSPECIFIED]: 'other',
  [FileKind.FILE]: 'file',
  [FileKind.DIR]: 'dir',
  [FileKind.SYMLINK]: 'symlink',
  [FileKind.OTHER]: 'other',
};

export function fileInfoView(info: AgentFileInfo): FileInfo {
  const name = Buffer.from(info.name);
  const text = name.toString('utf8');
  const isText = Buffer.from(text, 'utf8').equals(name);
  return {
    name: text,
    kind: KINDS[info.kind] ?? 'other',
    size_bytes: Number(info.sizeBytes),
    mode: info.mode.toString(8).padStart(4, '0'),
    uid: info.uid,
    gid: info.gid,
    modified_at: new Date(Number(info.modifiedUnixNs / 1_000_000n)).toISOString(),
    ...(info.linkTarget.length > 0 ? { link_target: Buffer.from(info.linkTarget).toString('utf8') } : {}),
    ...(isText ? {} : { name_base64: name.toString('base64') }),
  };
}
