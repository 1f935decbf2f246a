/** Files and directories of a sandbox. Paths are absolute; contents are streams or whole. */
import { events } from './event-stream.ts';
import { contentsOf, type HttpClient, type Query } from './http.ts';

export type FileKind = 'file' | 'dir' | 'symlink' | 'other';

export type FileInfo = {
  readonly name: string;
  readonly kind: FileKind;
  readonly sizeBytes: number;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedAt: Date;
  readonly linkTarget: string | undefined;
  /** The exact name in base64, when it is not valid UTF-8. */
  readonly nameBase64: string | undefined;
};

/** As whom, and inside what: the path, links resolved in the sandbox, must lie in one of `within`. */
export type Access = { readonly user?: string | undefined; readonly within?: readonly string[] | undefined };

export type Ownership = { readonly owner?: string | undefined; readonly group?: string | undefined };

export type WriteOptions = Access &
  Ownership & {
    readonly mode?: number | undefined;
    /** Makes missing parent directories. */
    readonly parents?: boolean | undefined;
    readonly append?: boolean | undefined;
    /** When it counts as modified, from 1970 on; now when left out. */
    readonly modifiedAt?: Date | undefined;
    readonly signal?: AbortSignal | undefined;
  };

export type ChangeEvent = { readonly kind: string; readonly path: string };

export type Contents = Uint8Array | string | AsyncIterable<Uint8Array>;

type WireInfo = {
  name: string;
  kind: FileKind;
  size_bytes: number;
  mode: string;
  uid: number;
  gid: number;
  modified_at: string;
  link_target?: string;
  name_base64?: string;
};

export class Files {
  readonly #http: HttpClient;
  readonly #base: string;

  constructor(http: HttpClient, sandboxId: string) {
    this.#http = http;
    this.#base = `/v2/sandboxes/${encodeURIComponent(sandboxId)}`;
  }

  /** The whole file. @throws InstaVMError `file_not_found`, … */
  async read(path: string, options: Access & { maxBytes?: number | undefined } = {}): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.readStream(path, { ...options, length: options.maxBytes })) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async readText(path: string, options: Access = {}): Promise<string> {
    return Buffer.from(await this.read(path, options)).toString('utf8');
  }

  /** The contents as they come. Breaking off is an error, never an early end. */
  async *readStream(
    path: string,
    options: Access & { offset?: number | undefined; length?: number | undefined } = {},
  ): AsyncGenerator<Uint8Array> {
    const { offset, length, ...access } = options;
    const body = await this.#http.stream({
      method: 'GET',
      path: `${this.#base}/files`,
      query: { path, offset, length, ...query(access) },
    });
    yield* contentsOf(body);
  }

  /** The file appears complete or not at all (except with `append`). */
  async write(path: string, contents: Contents, options: WriteOptions = {}): Promise<FileInfo> {
    const { mode, parents, append, owner, group, modifiedAt, signal, ...access } = options;
    const octal = mode === undefined ? undefined : octalMode(mode);
    const body = typeof contents === 'string' ? Buffer.from(contents) : contents;
    const modified_at = modifiedAt?.toISOString();
    const asked = { path, mode: octal, parents, append, owner, group, modified_at, ...query(access) };
    return fileInfo(await this.#http.json({ method: 'PUT', path: `${this.#base}/files`, query: asked, body, signal }));
  }

  async stat(path: string, options: Access & { follow?: boolean } = {}): Promise<FileInfo> {
    const { follow, ...access } = options;
    return fileInfo(
      await this.#http.json({
        method: 'GET',
        path: `${this.#base}/files/stat`,
        query: { path, follow, ...query(access) },
      }),
    );
  }

  /** Entries in name order. */
  async list(path: string, options: Access = {}): Promise<FileInfo[]> {
    const answer = await this.#http.json<{ entries: WireInfo[] }>({
      method: 'GET',
      path: `${this.#base}/files/list`,
      query: { path, ...query(options) },
    });
    return answer.entries.map(fileInfo);
  }

  async mkdir(
    path: string,
    options: Access & Ownership & { mode?: number | undefined; parents?: boolean | undefined } = {},
  ): Promise<FileInfo> {
    const { mode, ...rest } = options;
    const json = { path, ...rest, ...(mode === undefined ? {} : { mode: octalMode(mode) }) };
    return fileInfo(await this.#http.json({ method: 'POST', path: `${this.#base}/files/mkdir`, json }));
  }

  async remove(path: string, options: Access & { recursive?: boolean; force?: boolean } = {}): Promise<void> {
    await this.#http.json({ method: 'POST', path: `${this.#base}/files/remove`, json: { path, ...options } });
  }

  async rename(from: string, to: string, options: Access = {}): Promise<FileInfo> {
    return fileInfo(
      await this.#http.json({ method: 'POST', path: `${this.#base}/files/rename`, json: { from, to, ...options } }),
    );
  }

  /** Changes below a directory, until the iteration is ended; the first event is `ready`. */
  async *watch(path: string, options: Access & { recursive?: boolean } = {}): AsyncGenerator<ChangeEvent> {
    const { recursive, ...access } = options;
    const body = await this.#http.stream({
      method: 'GET',
      path: `${this.#base}/files/watch`,
      query: { path, recursive, ...query(access) },
    });
    yield* events<ChangeEvent>(body);
  }

  /** A directory as an uncompressed tar, names relative to it. */
  async *packTar(path: string, options: Access & { exclude?: readonly string[] } = {}): AsyncGenerator<Uint8Array> {
    const { exclude, ...access } = options;
    const body = await this.#http.stream({
      method: 'GET',
      path: `${this.#base}/tar`,
      query: { path, exclude, ...query(access) },
    });
    yield* contentsOf(body);
  }

  /** Unpacks an uncompressed tar below a directory. */
  async unpackTar(
    path: string,
    archive: AsyncIterable<Uint8Array> | Uint8Array,
    options: Access & Ownership & { maxBytes?: number | undefined; maxEntries?: number | undefined } = {},
  ): Promise<{ readonly entries: number; readonly sizeBytes: number }> {
    const { owner, group, maxBytes, maxEntries, ...access } = options;
    const asked = { path, owner, group, max_bytes: maxBytes, max_entries: maxEntries, ...query(access) };
    const done = await this.#http.json<{ entries: number; size_bytes: number }>({
      method: 'PUT',
      path: `${this.#base}/tar`,
      query: asked,
      body: archive,
    });
    return { entries: done.entries, sizeBytes: done.size_bytes };
  }
}

const octalMode = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, '0');

const query = ({ user, within }: Access): Query => ({ user, within });

function fileInfo(info: WireInfo): FileInfo {
  return {
    name: info.name,
    kind: info.kind,
    sizeBytes: info.size_bytes,
    mode: Number.parseInt(info.mode, 8),
    uid: info.uid,
    gid: info.gid,
    modifiedAt: new Date(info.modified_at),
    linkTarget: info.link_target,
    nameBase64: info.name_base64,
  };
}
