/** The filter of migration streams, against streams that are made up and against noise. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_BYTES, RamFilter, RamStreamError } from './ram-stream.ts';

const PAGES = 64;
const MEMORY = PAGES * PAGE_BYTES;

type Page = { readonly page: number; readonly fill: number };
type Piece = { readonly block: 'ram' | 'bios'; readonly pages: readonly Page[] };

const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
const name = (text: string): Buffer => Buffer.from([text.length, ...Buffer.from(text)]);
const section = (kind: number): Buffer => Buffer.from([kind, 0, 0, 0, 2]);
const FOOTER = Buffer.from([0x7e, 0, 0, 0, 2]);
const REST = Buffer.from('the device state, whatever is in it \x01\x02\x03');

/** As QEMU writes one: names only where the block changes, zero pages as one byte. */
function streamOf(parts: readonly (readonly Piece[])[]): Buffer {
  const bytes: Buffer[] = [
    Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 3, 7, 0, 0, 0, 9, ...Buffer.from('microvm-1')]),
    Buffer.concat([section(1), name('ram'), Buffer.from([0, 0, 0, 0, 0, 0, 0, 4])]),
    u64(MEMORY + 2 * PAGE_BYTES + 4),
    ...[name('ram'), u64(MEMORY), u64(0), name('bios'), u64(2 * PAGE_BYTES), u64(0xfff00000)],
    ...[u64(0x10), FOOTER],
  ];
  let block = '';
  for (const [index, pieces] of parts.entries()) {
    bytes.push(section(index === parts.length - 1 ? 3 : 2));
    for (const piece of pieces) {
      for (const { page, fill } of piece.pages) {
        const offset = (page % (piece.block === 'ram' ? PAGES : 2)) * PAGE_BYTES;
        const flags = (fill === 0 ? 0x02 : 0x08) | (block === piece.block ? 0x20 : 0);
        bytes.push(u64(offset | flags));
        if (block !== piece.block) bytes.push(name(piece.block));
        bytes.push(fill === 0 ? Buffer.of(0) : Buffer.alloc(PAGE_BYTES, fill));
        block = piece.block;
      }
    }
    bytes.push(u64(0x10), FOOTER);
  }
  return Buffer.concat([...bytes, REST]);
}

/** What a restored machine has: the template's pages, under those of the stream. Reads as QEMU does. */
function restored(stream: Buffer, template: Buffer): { memory: Buffer; bios: Buffer; rest: Buffer } {
  const memory = Buffer.from(template);
  const bios = Buffer.alloc(2 * PAGE_BYTES);
  let at = stream.indexOf(u64(0x10)) + 8 + 5;
  let block = '';
  for (let kind = stream[at]; kind === 2 || kind === 3; kind = stream[at]) {
    at += 5;
    for (;;) {
      const word = Number(stream.readBigUInt64BE(at));
      const flags = word % PAGE_BYTES;
      at += 8;
      if (flags === 0x10) break;
      if ((flags & 0x20) === 0) {
        const length = stream[at] ?? 0;
        block = stream.toString('latin1', at + 1, at + 1 + length);
        at += 1 + length;
      }
      const isZero = (flags & 0x02) !== 0;
      const page = isZero ? Buffer.alloc(PAGE_BYTES) : stream.subarray(at, at + PAGE_BYTES);
      page.copy(block === 'ram' ? memory : bios, word - flags);
      at += isZero ? 1 : PAGE_BYTES;
    }
    at += 5;
    if (kind === 3) break;
  }
  return { memory, bios, rest: stream.subarray(at) };
}

function filtered(stream: Buffer, template: Buffer, cuts: readonly number[]): Buffer {
  const filter = new RamFilter(MEMORY, (offset) => template.subarray(offset, offset + PAGE_BYTES));
  const out: Buffer[] = [];
  let from = 0;
  for (const to of [...cuts.map((cut) => cut % stream.length).sort((a, b) => a - b), stream.length]) {
    // A chunk is only valid while it is pushed, as that of a socket.
    for (const piece of filter.push(Buffer.from(stream.subarray(from, to)))) out.push(Buffer.from(piece));
    from = to;
  }
  filter.end();
  return Buffer.concat(out);
}

const pages = fc.array(fc.record({ page: fc.nat(PAGES - 1), fill: fc.integer({ min: 0, max: 3 }) }), { maxLength: 12 });
const piece = fc.record({ block: fc.constantFrom<'ram' | 'bios'>('ram', 'bios'), pages });
const parts = fc.array(fc.array(piece, { maxLength: 4 }), { minLength: 1, maxLength: 4 });
const fills = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: PAGES, maxLength: PAGES });
const templateOf = (given: readonly number[]): Buffer =>
  Buffer.concat(given.map((fill) => Buffer.alloc(PAGE_BYTES, fill)));

describe('a filtered stream', () => {
  it('restores the same machine over the template, however it was cut', () => {
    const run = (all: Piece[][], given: number[], cuts: number[]): void => {
      // Each page of memory comes once, as from a machine that stands still.
      const seen = new Set<number>();
      const once = all.map((part) =>
        part.map((one) => ({
          ...one,
          pages: one.block === 'ram' ? one.pages.filter(({ page }) => !seen.has(page) && seen.add(page)) : one.pages,
        })),
      );
      const template = templateOf(given);
      const stream = streamOf(once);
      expect(restored(filtered(stream, template, cuts), template)).toEqual(restored(stream, template));
    };
    fc.assert(fc.property(parts, fills, fc.array(fc.nat(), { maxLength: 30 }), run), { numRuns: 80 });
  });

  it('has no page that the template has, and every page that it has not', () => {
    const template = templateOf(Array.from({ length: PAGES }, (_, page) => page % 2));
    const all = Array.from({ length: PAGES }, (_, page) => ({
      page,
      fill: page === 5 ? 2 : page === 7 ? 0 : page % 2,
    }));
    const stream = streamOf([[{ block: 'ram', pages: all }]]);
    const kept = filtered(stream, template, []);
    expect(kept.length).toBeLessThan(stream.length - 30 * PAGE_BYTES);
    expect(kept.filter((byte) => byte === 2).length).toBeGreaterThanOrEqual(PAGE_BYTES);
    expect(restored(kept, template)).toEqual(restored(stream, template));
  });

  it('is refused when it breaks off anywhere', () => {
    const template = templateOf(Array(PAGES).fill(0));
    const stream = streamOf([[{ block: 'ram', pages: [{ page: 1, fill: 1 }] }]]);
    for (let length = 0; length < stream.length - REST.length; length++) {
      const filter = new RamFilter(MEMORY, (offset) => template.subarray(offset, offset + PAGE_BYTES));
      filter.push(stream.subarray(0, length));
      expect(() => filter.end()).toThrow(RamStreamError);
    }
  });

  it.each([
    ['device state', Buffer.alloc(1024 * 1024)],
    // Each another time than the template's, and so kept.
    ['memory', Buffer.concat(Array(256).fill(Buffer.concat([u64(0x08), name('ram'), Buffer.alloc(PAGE_BYTES, 7)])))],
  ])('is refused when its %s has no end', (what, more) => {
    const template = templateOf(Array(PAGES).fill(0));
    const filter = new RamFilter(MEMORY, (offset) => template.subarray(offset, offset + PAGE_BYTES));
    const whole = streamOf([[{ block: 'ram', pages: [{ page: 1, fill: 1 }] }]]);
    const begun = what === 'memory' ? whole.length - REST.length - FOOTER.length - 8 : whole.length;
    filter.push(whole.subarray(0, begun));
    let kept = 0;
    const flood = (): void => {
      for (let sent = 0; sent < 200; sent++) kept += filter.push(more).reduce((sum, { length }) => sum + length, 0);
    };
    expect(flood).toThrow('longer than that of any such machine');
    expect(kept).toBeLessThan(70 * 1024 * 1024);
  });

  it('is refused, and never waited for, when it is no such stream', () => {
    const template = templateOf(Array(PAGES).fill(0));
    const good = streamOf([[{ block: 'ram', pages: [{ page: 1, fill: 1 }] }]]);
    const damaged = fc
      .tuple(fc.nat(good.length - REST.length - 1), fc.integer({ min: 1, max: 255 }))
      .map(([at, change]) => {
        const bytes = Buffer.from(good);
        bytes[at] = (bytes[at] ?? 0) ^ change;
        return bytes;
      });
    const noise = fc.uint8Array({ maxLength: 20_000 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(damaged, noise), (stream) => {
        const filter = new RamFilter(MEMORY, (offset) => template.subarray(offset, offset + PAGE_BYTES));
        try {
          const out = filter.push(stream);
          expect(out.reduce((sum, one) => sum + one.length, 0)).toBeLessThanOrEqual(stream.length + 1024);
          filter.end();
        } catch (error) {
          if (!(error instanceof RamStreamError)) throw error;
        }
      }),
      { numRuns: 1500 },
    );
  });
});
