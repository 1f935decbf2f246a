/**
 * The part of QEMU's migration stream that holds memory: taken apart in a template's state, written anew for a snapshot. Restored over the
 * template's memory, mapped privately, such a stream gives the same machine: a page that is not in it is the template's.
 *
 * The format is QEMU's (docs/devel/migration.rst; sections and records as of version 3 of the stream, version 4 of the section "ram").
 * Only what this project's own command line produces is accepted: one memory block of the machine's size, which a template keeps in its file,
 * besides small ones; no compression, no postcopy. Everything else is refused, so that a newer QEMU cannot be misread in silence.
 */

export const PAGE_BYTES = 4096;

const MAGIC = 0x51_45_56_4d;
const STREAM_VERSION = 3;
/** Of magic and version. */
const VERSION_END = 8;
const END_OF_DEVICES = 0;
const SECTION_START = 1;
const SECTION_PART = 2;
const SECTION_END = 3;
const SECTION_FULL = 4;
/** A description of the stream for people, here an empty one: QEMU says so when there is none. */
const DESCRIPTION = Buffer.from([6, 0, 0, 0, 0]);
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

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export class RamStreamError extends Error {
  override readonly name = 'RamStreamError';
}

/** A template's state, cut where the pages of a snapshot go, and where its devices begin. */
export type StreamParts = {
  /** The same in every stream of the same machine. */
  readonly preamble: Buffer;
  /** From the preamble to the list of memory blocks. */
  readonly head: Buffer;
  /** What is in the small blocks, which no guest can change: firmware and its tables. */
  readonly tail: Buffer;
  readonly sectionId: number;
  /** The name of the block that is the machine's memory. */
  readonly memoryBlock: string;
};

/** @throws RamStreamError */
export function dissect(stream: Buffer, memoryBytes: number): StreamParts {
  const reader = new Reader(stream);
  if (reader.u32() !== MAGIC || reader.u32() !== STREAM_VERSION)
    throw new RamStreamError('this is no migration stream of version 3');
  // Its configuration has parts of several kinds; the section that follows it is found by its header.
  const header = stream.subarray(0, MAX_PREAMBLE_BYTES).indexOf(RAM_HEADER);
  const start = header - 5;
  if (start < VERSION_END || stream[start] !== SECTION_START)
    throw new RamStreamError('the stream does not begin with the memory');
  const sectionId = stream.readUInt32BE(start + 1);
  reader.at = header + RAM_HEADER.length;
  const memoryBlock = readBlocks(reader, memoryBytes);
  readFooter(reader, sectionId);
  const headEnd = reader.at;
  while (readSection(reader, sectionId, memoryBlock) !== SECTION_END);
  return {
    preamble: stream.subarray(0, start),
    head: stream.subarray(0, headEnd),
    tail: stream.subarray(headEnd, reader.at),
    sectionId,
    memoryBlock,
  };
}

/** The list of memory blocks; with x-ignore-shared each has its address, too. @returns the name of the machine's memory */
function readBlocks(reader: Reader, memoryBytes: number): string {
  const total = reader.u64();
  if ((total & FLAGS) !== BigInt(FLAG_MEM_SIZE)) throw new RamStreamError('the list of memory blocks is missing');
  let rest = total & ~FLAGS;
  const memory: string[] = [];
  while (rest > 0n) {
    const [name, length] = [reader.text(), reader.u64()];
    reader.u64();
    if (length === 0n || length > rest) throw new RamStreamError('the sizes of the memory blocks do not add up');
    if (length === BigInt(memoryBytes)) memory.push(name);
    rest -= length;
  }
  const [name] = memory;
  if (reader.u64() !== BigInt(FLAG_EOS) || name === undefined || memory.length !== 1)
    throw new RamStreamError('the memory blocks are not those of this machine');
  return name;
}

/** @returns its kind */
function readSection(reader: Reader, sectionId: number, memoryBlock: string): number {
  const kind = reader.u8();
  if (kind !== SECTION_PART && kind !== SECTION_END)
    throw new RamStreamError(`a section of the kind ${kind} stands where more memory is due`);
  if (reader.u32() !== sectionId) throw new RamStreamError('another section stands where more memory is due');
  let block = '';
  for (let word = reader.u64(); word !== BigInt(FLAG_EOS); word = reader.u64()) {
    const flags = Number(word & FLAGS);
    if ((flags & FLAG_CONTINUE) === 0) block = reader.text();
    if (block === memoryBlock) throw new RamStreamError('the memory is in the stream of its template');
    const content = flags & ~FLAG_CONTINUE;
    if (content !== FLAG_PAGE && content !== FLAG_ZERO) throw new RamStreamError(`a record has the flags ${flags}`);
    reader.take(content === FLAG_PAGE ? PAGE_BYTES : 1);
  }
  readFooter(reader, sectionId);
  return kind;
}

function readFooter(reader: Reader, sectionId: number): void {
  if (reader.u8() !== SECTION_FOOTER || reader.u32() !== sectionId)
    throw new RamStreamError('a section does not end as it should');
}

/** What takes the pages of one section, in any order. */
export class PageSection {
  readonly #parts: StreamParts;
  readonly #write: (bytes: Buffer) => void;
  readonly #next = Buffer.alloc(8);
  #isFirst = true;

  constructor(parts: StreamParts, write: (bytes: Buffer) => void) {
    this.#parts = parts;
    this.#write = write;
    write(sectionWord(SECTION_PART, parts.sectionId));
  }

  /** @param content one page; zeros are told in a byte. Not kept */
  add(offset: number, content: Buffer): void {
    const isZero = content.equals(ZERO_PAGE);
    this.#word(offset, (isZero ? FLAG_ZERO : FLAG_PAGE) | (this.#isFirst ? 0 : FLAG_CONTINUE));
    // Later ones are of the same block.
    const name = Buffer.from(this.#parts.memoryBlock, 'latin1');
    if (this.#isFirst) this.#write(Buffer.from([name.length, ...name]));
    this.#isFirst = false;
    this.#write(isZero ? ZERO_PAGE.subarray(0, 1) : content);
  }

  end(): void {
    this.#word(0, FLAG_EOS);
    this.#write(sectionWord(SECTION_FOOTER, this.#parts.sectionId));
  }

  #word(offset: number, flags: number): void {
    this.#next.writeUInt32BE(Math.floor(offset / 2 ** 32), 0);
    this.#next.writeUInt32BE((offset % 2 ** 32) + flags, 4);
    this.#write(this.#next);
  }
}

const sectionWord = (kind: number, id: number): Buffer => {
  const bytes = Buffer.from([kind, 0, 0, 0, 0]);
  bytes.writeUInt32BE(id, 1);
  return bytes;
};

/**
 * @param stream QEMU's, of the devices alone: with the configuration of a whole one, or without, as QEMU before 8 writes it
 * @returns what follows the memory in the stream of a snapshot. @throws RamStreamError
 */
export function devicesOf(stream: Buffer, { preamble }: StreamParts): Buffer {
  const begin = [preamble, preamble.subarray(0, VERSION_END)].find((each) =>
    stream.subarray(0, each.length).equals(each),
  );
  if (begin === undefined || stream[begin.length] !== SECTION_FULL)
    throw new RamStreamError('the devices are not those of the template');
  if (stream.at(-1) !== END_OF_DEVICES) throw new RamStreamError('the state of the devices broke off');
  return Buffer.concat([stream.subarray(begin.length), DESCRIPTION]);
}

/** Takes elements off a buffer. @throws RamStreamError where it breaks off */
class Reader {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number): Buffer {
    if (this.at + length > this.#bytes.length) throw new RamStreamError('the stream broke off');
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  u8(): number {
    return this.take(1).readUInt8(0);
  }

  u32(): number {
    return this.take(4).readUInt32BE(0);
  }

  u64(): bigint {
    return this.take(8).readBigUInt64BE(0);
  }

  text(): string {
    return this.take(this.u8()).toString('latin1');
  }
}
