/**
 * The memory of a stopped microVM, read out of the process that runs it. QEMU maps the template's file privately, so the pages that were ever
 * written to are those that are the process's own, as the kernel tells (proc(5): maps, pagemap, mem). QEMU leaves memory alone while its guest
 * stands still: it takes its devices off their streams and has its disks finish first.
 */
import { type FileHandle, open, readFile, stat } from 'node:fs/promises';
import { DESCRIPTORS } from './arguments.ts';
import { PAGE_BYTES } from './ram-stream.ts';

/** A stretch of memory, in bytes. */
export type Stretch = { readonly offset: number; readonly length: number };

/** The longest stretch. */
export const STRETCH_BYTES = 1024 * 1024;
const STRETCH_PAGES = STRETCH_BYTES / PAGE_BYTES;

/** An entry of pagemap has 8 bytes; what it says of a page is in the last. */
const ENTRY_BYTES = 8;
const IS_THERE_OR_SWAPPED = 0xc0;
const IS_OF_A_FILE = 0x20;

type Mapping = { readonly start: number; readonly inode: number };

export class ProcessMemory {
  readonly #memory: FileHandle;
  readonly #pageMap: FileHandle;
  readonly #start: number;
  readonly #bytes: number;
  /** False after the template was made again: then what was not written to is in no file that is there any more. */
  readonly #isOfTemplate: boolean;

  private constructor(files: readonly [FileHandle, FileHandle], start: number, bytes: number, isOfTemplate: boolean) {
    [this.#memory, this.#pageMap] = files;
    this.#start = start;
    this.#bytes = bytes;
    this.#isOfTemplate = isOfTemplate;
  }

  /** @param pid of a QEMU that was started with `DESCRIPTORS`. @throws Error when the kernel does not let this process look */
  static async open(pid: number, memoryBytes: number, templateMemoryPath: string): Promise<ProcessMemory> {
    const own = `/proc/${pid}`;
    const [maps, theirs, template] = await Promise.all([
      readFile(`${own}/maps`, 'latin1'),
      stat(`${own}/fd/${DESCRIPTORS.memory}`),
      stat(templateMemoryPath),
    ]).catch(refused);
    const { start, inode } = mappingOf(maps, memoryBytes);
    const isOfTemplate = theirs.dev === template.dev && theirs.ino === template.ino && inode === template.ino;
    const pageMap = await open(`${own}/pagemap`, 'r').catch(refused);
    try {
      const memory = await open(`${own}/mem`, 'r').catch(refused);
      return new ProcessMemory([memory, pageMap], start, memoryBytes, isOfTemplate);
    } catch (error) {
      await pageMap.close();
      throw error;
    }
  }

  /** In which all pages are that differ from the template's, and others between them; in order. The guest must stand still. */
  async written(): Promise<Stretch[]> {
    const found: Stretch[] = [];
    const entries = Buffer.alloc(STRETCH_PAGES * ENTRY_BYTES);
    for (let offset = 0; offset < this.#bytes; offset += STRETCH_BYTES) {
      const pages = Math.min(STRETCH_PAGES, (this.#bytes - offset) / PAGE_BYTES);
      const own = entries.subarray(0, pages * ENTRY_BYTES);
      await readAll(this.#pageMap, own, ((this.#start + offset) / PAGE_BYTES) * ENTRY_BYTES);
      let [first, end] = this.#isOfTemplate ? [pages, 0] : [0, pages];
      for (let page = 0; page < pages; page++) {
        const says = own[page * ENTRY_BYTES + ENTRY_BYTES - 1] ?? 0;
        if ((says & IS_THERE_OR_SWAPPED) === 0 || (says & IS_OF_A_FILE) !== 0) continue;
        first = Math.min(first, page);
        end = Math.max(end, page + 1);
      }
      if (first < end) found.push({ offset: offset + first * PAGE_BYTES, length: (end - first) * PAGE_BYTES });
    }
    return found;
  }

  /** Fills `into`. */
  read(into: Buffer, offset: number): Promise<void> {
    return readAll(this.#memory, into, this.#start + offset);
  }

  async close(): Promise<void> {
    await Promise.all([this.#memory.close(), this.#pageMap.close()]);
  }
}

/** Where the process has all of a file of this size, privately and writable: in one piece for QEMU, in several for the kernel perhaps. */
function mappingOf(maps: string, bytes: number): Mapping {
  let found: (Mapping & { end: number }) | undefined;
  for (const line of maps.split('\n')) {
    const [, from = '', to = '', offset = '', inode = ''] =
      /^([0-9a-f]+)-([0-9a-f]+) rw-p ([0-9a-f]+) \S+ (\d+)/.exec(line) ?? [];
    const [start, end, skipped] = [from, to, offset].map((text) => Number.parseInt(text, 16)) as [
      number,
      number,
      number,
    ];
    if (found?.end === start && found.inode === Number(inode) && skipped === start - found.start) found.end = end;
    else if (inode !== '' && inode !== '0' && skipped === 0) found = { start, end, inode: Number(inode) };
    else continue;
    if (found.end - found.start === bytes) return found;
  }
  throw new Error('QEMU has no memory of the size that it should have');
}

/** @throws Error also where there is less */
export async function readAll(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw new Error('the memory ended too soon');
    done += bytesRead;
  }
}

function refused(error: NodeJS.ErrnoException): never {
  if (error.code !== 'EACCES' && error.code !== 'EPERM') throw error;
  throw new Error(
    `the kernel does not let this daemon read the memory of its VMM (${error.code}): it takes CAP_SYS_PTRACE, or the same user and kernel.yama.ptrace_scope=0`,
  );
}
