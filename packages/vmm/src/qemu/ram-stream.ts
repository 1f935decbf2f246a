/**
 * QEMU's migration stream, with the pages left out that a clone of the template has anyway. Restored over the template's memory, mapped
 * privately, such a stream gives the same machine: a page that is not in it is the template's.
 *
 * The format is QEMU's (docs/devel/migration.rst; sections and records as of version 3 of the stream, version 4 of the section "ram").
 * Only what this project's own command line produces is accepted: one memory block of the machine's size besides small ones, no
 * compression, no postcopy. Everything else is refused, so that a newer QEMU cannot be misread in silence.
 */

export const PAGE_BYTES = 4096;

const MAGIC = 0x51_45_56_4d;
const STREAM_VERSION = 3;
const SECTION_START = 1;
const SECTION_PART = 2;
const SECTION_END = 3;
const SECTION_FOOTER = 0x7e;
/** A section's name, its instance and its version. */
const RAM_HEADER = Buffer.from([3, ...Buffer.from('ram'), 0, 0, 0, 0, 0, 0, 0, 4]);
/** What stands before the first section: magic, version, configuration. */
const MAX_PREAMBLE_BYTES = 4096;

const FLAG_ZERO = 0x02;
const FLAG_MEM_SIZE = 0x04;
const FLAG_PAGE = 0x08;
const FLAG_EOS = 0x10;
const FLAG_CONTINUE = 0x20;
const FLAGS = BigInt(PAGE_BYTES - 1);

/** What a machine has beside its memory: ROMs and the state of its devices, which are hundreds of kilobytes. */
const MAX_OTHER_BYTES = 64 * 1024 * 1024;
/** Head and longest name of a page's record. */
const MAX_RECORD_HEAD_BYTES = 8 + 1 + 255;

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export class RamStreamError extends Error {
  override readonly name = 'RamStreamError';
}

type State = 'preamble' | 'setup' | 'section' | 'records' | 'footer' | 'rest';

export class RamFilter {
  readonly #memoryBytes: number;
  readonly #templatePage: (offset: number) => Buffer;
  #state: State = 'preamble';
  #pending: Buffer = Buffer.alloc(0);
  #sectionId = 0;
  #afterFooter: State = 'section';
  /** The block that is the machine's memory. */
  #memoryBlock: string | undefined;
  #block = '';
  /** What the reader of the output takes for the present block. */
  #emittedBlock = '';
  #keptBytes = 0;
  readonly #maxKeptBytes: number;
  /** Pages of memory that were kept, for people. */
  keptPages = 0;

  /** @param templatePage the page of the template's memory at an offset; valid until the next call */
  constructor(memoryBytes: number, templatePage: (offset: number) => Buffer) {
    this.#memoryBytes = memoryBytes;
    this.#templatePage = templatePage;
    this.#maxKeptBytes = (memoryBytes / PAGE_BYTES) * (PAGE_BYTES + MAX_RECORD_HEAD_BYTES) + MAX_OTHER_BYTES;
  }

  /** @returns what of the stream is to be stored, in order; views of `chunk` where possible. @throws RamStreamError */
  push(chunk: Buffer): Buffer[] {
    const bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const reader = new Reader(bytes);
    while (this.#step(reader)) reader.commit();
    reader.finish();
    this.#pending = Buffer.from(bytes.subarray(reader.committed));
    if (this.#pending.length > MAX_PREAMBLE_BYTES + PAGE_BYTES + 1024)
      throw new RamStreamError(`the stream does not go on in the state "${this.#state}"`);
    this.#keptBytes += reader.kept.reduce((total, piece) => total + piece.length, 0);
    // A guest may have broken into who sends it, and would fill the disk.
    if (this.#keptBytes > this.#maxKeptBytes)
      throw new RamStreamError('the stream is longer than that of any such machine');
    return reader.kept;
  }

  /** @throws RamStreamError when the stream broke off */
  end(): void {
    if (this.#state !== 'rest' || this.#pending.length > 0) throw new RamStreamError('the stream broke off');
  }

  /** One element of the stream. @returns false when there is not all of it yet, or nothing is left */
  #step(reader: Reader): boolean {
    if (reader.left === 0) return false;
    switch (this.#state) {
      case 'preamble':
        return this.#preamble(reader);
      case 'setup':
        return this.#setup(reader);
      case 'section':
        return this.#section(reader);
      case 'records':
        return this.#record(reader);
      case 'footer':
        return this.#footer(reader);
      case 'rest':
        reader.take(reader.left);
        reader.keep();
        return true;
    }
  }

  /** Its configuration has parts of several kinds; the section that follows it is found by its header. */
  #preamble(reader: Reader): boolean {
    if (reader.left < 8) return false;
    if (reader.bytes.readUInt32BE(0) !== MAGIC || reader.bytes.readUInt32BE(4) !== STREAM_VERSION)
      throw new RamStreamError('this is no migration stream of version 3');
    const header = reader.bytes.subarray(0, MAX_PREAMBLE_BYTES).indexOf(RAM_HEADER);
    if (header < 0) {
      if (reader.left >= MAX_PREAMBLE_BYTES) throw new RamStreamError('the stream does not begin with the memory');
      return false;
    }
    const start = header - 5;
    if (start < 8 || reader.bytes[start] !== SECTION_START)
      throw new RamStreamError('the section of the memory does not begin as it should');
    this.#sectionId = reader.bytes.readUInt32BE(start + 1);
    reader.take(header + RAM_HEADER.length);
    reader.keep();
    this.#state = 'setup';
    return true;
  }

  /** The list of memory blocks. With x-ignore-shared each has its address, too. */
  #setup(reader: Reader): boolean {
    const total = reader.u64();
    if (total === undefined) return false;
    if ((total & FLAGS) !== BigInt(FLAG_MEM_SIZE)) throw new RamStreamError('the list of memory blocks is missing');
    let rest = total & ~FLAGS;
    const memory: string[] = [];
    while (rest > 0n) {
      const name = reader.text();
      const length = name === undefined ? undefined : reader.u64();
      const address = length === undefined ? undefined : reader.u64();
      if (name === undefined || length === undefined || address === undefined) return false;
      if (length === 0n || length > rest) throw new RamStreamError('the sizes of the memory blocks do not add up');
      if (length === BigInt(this.#memoryBytes)) memory.push(name);
      rest -= length;
    }
    const end = reader.u64();
    if (end === undefined) return false;
    if (end !== BigInt(FLAG_EOS) || memory.length !== 1)
      throw new RamStreamError('the memory blocks are not those of this machine');
    this.#memoryBlock = memory[0];
    reader.keep();
    this.#state = 'footer';
    return true;
  }

  #section(reader: Reader): boolean {
    const kind = reader.bytes[reader.at];
    if (kind !== SECTION_PART && kind !== SECTION_END)
      throw new RamStreamError(`a section of the kind ${kind} stands where more memory is due`);
    if (reader.left < 5) return false;
    if (reader.bytes.readUInt32BE(reader.at + 1) !== this.#sectionId)
      throw new RamStreamError('another section stands where more memory is due');
    reader.take(5);
    reader.keep();
    this.#state = 'records';
    this.#afterFooter = kind === SECTION_END ? 'rest' : 'section';
    return true;
  }

  #record(reader: Reader): boolean {
    const word = reader.u64();
    if (word === undefined) return false;
    const flags = Number(word & FLAGS);
    if (flags === FLAG_EOS) {
      reader.keep();
      this.#state = 'footer';
      return true;
    }
    const kind = flags & ~FLAG_CONTINUE;
    const isNamed = (flags & FLAG_CONTINUE) === 0;
    const name = isNamed ? reader.text() : this.#block;
    if (name === undefined) return false;
    if (kind !== FLAG_PAGE && kind !== FLAG_ZERO) throw new RamStreamError(`a record has the flags ${flags}`);
    const content = reader.take(kind === FLAG_PAGE ? PAGE_BYTES : 1);
    if (content === undefined) return false;
    if (kind === FLAG_ZERO && content[0] !== 0) throw new RamStreamError('a page is filled with something but zeros');
    this.#block = name;
    const offset = Number(word & ~FLAGS);
    if (name === this.#memoryBlock) {
      if (offset + PAGE_BYTES > this.#memoryBytes) throw new RamStreamError('a page lies beyond the memory');
      if (this.#templatePage(offset).equals(kind === FLAG_PAGE ? content : ZERO_PAGE)) {
        return true;
      }
      this.keptPages++;
    }
    if (isNamed || name === this.#emittedBlock) reader.keep();
    else reader.replace(named(word, name), content);
    this.#emittedBlock = name;
    return true;
  }

  #footer(reader: Reader): boolean {
    const footer = reader.take(5);
    if (footer === undefined) return false;
    if (footer[0] !== SECTION_FOOTER || footer.readUInt32BE(1) !== this.#sectionId)
      throw new RamStreamError('a section does not end as it should');
    reader.keep();
    this.#state = this.#afterFooter;
    return true;
  }
}

/** A record's head with the name of its block, for one whose predecessor of the same block was left out. */
function named(word: bigint, name: string): Buffer {
  const text = Buffer.from(name, 'latin1');
  const head = Buffer.alloc(9 + text.length);
  head.writeBigUInt64BE(word & ~BigInt(FLAG_CONTINUE));
  head[8] = text.length;
  text.copy(head, 9);
  return head;
}

/** Takes elements off a buffer; those that are kept and stand side by side leave as one piece. */
class Reader {
  readonly bytes: Buffer;
  readonly kept: Buffer[] = [];
  at = 0;
  committed = 0;
  #runStart = 0;
  #runEnd = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  take(length: number): Buffer | undefined {
    if (this.left < length) return undefined;
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  u64(): bigint | undefined {
    return this.take(8)?.readBigUInt64BE(0);
  }

  text(): string | undefined {
    const length = this.take(1)?.[0];
    return length === undefined ? undefined : this.take(length)?.toString('latin1');
  }

  /** What was taken since the last commit is stored. */
  keep(): void {
    if (this.#runEnd !== this.committed) {
      this.#flush();
      this.#runStart = this.committed;
    }
    this.#runEnd = this.at;
  }

  replace(...pieces: Buffer[]): void {
    this.#flush();
    this.kept.push(...pieces);
    this.#runStart = this.at;
    this.#runEnd = this.at;
  }

  commit(): void {
    this.committed = this.at;
  }

  finish(): void {
    this.#flush();
  }

  #flush(): void {
    if (this.#runEnd > this.#runStart) this.kept.push(this.bytes.subarray(this.#runStart, this.#runEnd));
    this.#runStart = this.#runEnd;
  }
}
