/**
 * Stores what a stopped microVM has that its template has not, in a thread of its own: looks through half a gigabyte and more without holding up
 * the daemon. Says when it is ready, is then sent what QEMU saved of its devices, and ends with what it wrote or with the reason why not.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { ProcessMemory, readAll, STRETCH_BYTES, type Stretch } from './process-memory.ts';
import { devicesOf, dissect, PAGE_BYTES, PageSection } from './ram-stream.ts';

export type StoreRequest = {
  readonly pid: number;
  readonly statePath: string;
  readonly templateStatePath: string;
  readonly templateMemoryPath: string;
  readonly memoryBytes: number;
};
export type StoreMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'stored'; readonly bytes: number; readonly sha256Hex: string }
  | { readonly kind: 'failed'; readonly message: string; readonly code: string | undefined };

/** Written at once. What is put in between two flushes may go beyond it by a stretch of memory. */
const CHUNK_BYTES = 2 * 1024 * 1024;
const BUFFER_BYTES = CHUNK_BYTES + 2 * STRETCH_BYTES;

/** A file that is digested while it is written. */
class DigestedFile {
  readonly #file: FileHandle;
  readonly #hash = createHash('sha256');
  #filling = Buffer.alloc(BUFFER_BYTES);
  #spare = Buffer.alloc(BUFFER_BYTES);
  #used = 0;
  #writing: Promise<void> = Promise.resolve();
  bytes = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  put(bytes: Buffer): void {
    if (bytes.copy(this.#filling, this.#used) !== bytes.length) throw new Error('more was put than a buffer holds');
    this.#used += bytes.length;
  }

  /** Between any two, at most one stretch of memory is put, or one part of the template's state. */
  async flush(isEnd = false): Promise<void> {
    if (this.#used < CHUNK_BYTES && !isEnd) return;
    const chunk = this.#filling.subarray(0, this.#used);
    await this.#writing;
    this.#writing = this.#write(chunk);
    // Heard by the next flush.
    this.#writing.catch(() => {});
    this.#hash.update(chunk);
    this.bytes += chunk.length;
    [this.#filling, this.#spare, this.#used] = [this.#spare, this.#filling, 0];
  }

  /** @returns the digest */
  async end(): Promise<string> {
    await this.flush(true);
    await this.#writing;
    await this.#file.sync();
    return this.#hash.digest('hex');
  }

  async #write(chunk: Buffer): Promise<void> {
    for (let done = 0; done < chunk.length; )
      done += (await this.#file.write(chunk, done, chunk.length - done)).bytesWritten;
  }
}

async function store(request: StoreRequest, opened: { close(): Promise<void> }[]): Promise<StoreMessage> {
  const { pid, memoryBytes, templateMemoryPath } = request;
  const parts = dissect(await readFile(request.templateStatePath), memoryBytes);
  const template = await open(templateMemoryPath, 'r');
  opened.push(template);
  const memory = await ProcessMemory.open(pid, memoryBytes, templateMemoryPath);
  opened.push(memory);
  const file = await open(request.statePath, 'wx', 0o600);
  opened.push(file);
  const state = new DigestedFile(file);
  const sent = new Promise<Uint8Array>((resolve) => parentPort?.once('message', resolve));
  tell({ kind: 'ready' });
  const devices = devicesOf(Buffer.from(await sent), parts);

  state.put(parts.head);
  const section = new PageSection(parts, (bytes) => state.put(bytes));
  const stretches = await memory.written();
  const buffers = [0, 1].map(() => ({ live: Buffer.alloc(STRETCH_BYTES), old: Buffer.alloc(STRETCH_BYTES) }));
  const load = async (index: number): Promise<{ stretch: Stretch; live: Buffer; old: Buffer } | undefined> => {
    const [stretch, pair] = [stretches[index], buffers[index % 2]];
    if (stretch === undefined || pair === undefined) return undefined;
    const [live, old] = [pair.live, pair.old].map((buffer) => buffer.subarray(0, stretch.length)) as [Buffer, Buffer];
    await Promise.all([memory.read(live, stretch.offset), readAll(template, old, stretch.offset)]);
    return { stretch, live, old };
  };
  let coming = load(0);
  for (let index = 0; index < stretches.length; index++) {
    const loaded = await coming;
    if (loaded === undefined) break;
    const { stretch, live, old } = loaded;
    coming = load(index + 1);
    // Heard in the next round, unless this one fails.
    coming.catch(() => {});
    for (let at = 0; at < stretch.length; at += PAGE_BYTES) {
      const page = live.subarray(at, at + PAGE_BYTES);
      if (!page.equals(old.subarray(at, at + PAGE_BYTES))) section.add(stretch.offset + at, page);
    }
    await state.flush();
  }
  section.end();
  await state.flush(true);
  state.put(parts.tail);
  await state.flush(true);
  state.put(devices);
  const sha256Hex = await state.end();
  return { kind: 'stored', bytes: state.bytes, sha256Hex };
}

const tell = (message: StoreMessage): void => parentPort?.postMessage(message);

const opened: { close(): Promise<void> }[] = [];
const end = await store(workerData as StoreRequest, opened).catch(
  ({ message, code }: NodeJS.ErrnoException): StoreMessage => ({ kind: 'failed', message, code }),
);
await Promise.allSettled(opened.map((each) => each.close()));
tell(end);
