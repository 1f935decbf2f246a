/** What a snapshot's stream is made of, against streams that are made up and against noise. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { devicesOf, dissect, PAGE_BYTES, PageSection, RamStreamError } from './ram-stream.ts';
import { BIOS_PAGES, devices, type Page, PREAMBLE, templateState, u64, VERSION } from './test/streams.ts';

const PAGES = 64;
const MEMORY = PAGES * PAGE_BYTES;

const stateOf = (parts: readonly (readonly Page[])[], block?: string): Buffer => templateState(MEMORY, parts, block);

/** What a restored machine has: the template's pages, under those of the stream. Reads as QEMU does. */
function restored(stream: Buffer, template: Buffer): { memory: Buffer; bios: Buffer; rest: Buffer } {
  const memory = Buffer.from(template);
  const bios = Buffer.alloc(BIOS_PAGES * PAGE_BYTES);
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

function snapshot(state: Buffer, pages: readonly Page[], ownDevices: Buffer): Buffer {
  const parts = dissect(state, MEMORY);
  const out = [parts.head];
  // A page is only valid while it is added.
  const pagesOut = new PageSection(parts, (bytes) => out.push(Buffer.from(bytes)));
  for (const { page, fill } of pages) pagesOut.add(page * PAGE_BYTES, Buffer.alloc(PAGE_BYTES, fill));
  pagesOut.end();
  return Buffer.concat([...out, parts.tail, devicesOf(ownDevices, parts)]);
}

const fill = fc.integer({ min: 0, max: 3 });
const pages = fc.array(fc.record({ page: fc.nat(PAGES - 1), fill }), { maxLength: 12 });
const small = fc.array(fc.array(fc.record({ page: fc.nat(BIOS_PAGES - 1), fill }), { maxLength: 3 }), {
  minLength: 1,
  maxLength: 4,
});
const fills = fc.array(fill, { minLength: PAGES, maxLength: PAGES });

describe('the stream of a snapshot', () => {
  it('restores the pages that were put into it over the template’s, and firmware and devices as they were', () => {
    const run = (firmware: Page[][], changed: Page[], given: number[], hasConfiguration: boolean): void => {
      const state = stateOf(firmware);
      const template = Buffer.concat(given.map((each) => Buffer.alloc(PAGE_BYTES, each)));
      const own = devices('of the clone');
      const stream = snapshot(state, changed, Buffer.concat([hasConfiguration ? PREAMBLE : VERSION, own]));
      const memory = Buffer.from(template);
      for (const { page, fill } of changed) memory.fill(fill, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      const found = restored(stream, template);
      expect(found.memory.equals(memory)).toBe(true);
      expect(found.bios.equals(restored(state, template).bios)).toBe(true);
      expect(found.rest).toEqual(Buffer.concat([own, Buffer.from([6, 0, 0, 0, 0])]));
      expect(stream.subarray(0, PREAMBLE.length)).toEqual(PREAMBLE);
    };
    fc.assert(fc.property(small, pages, fills, fc.boolean(), run), { numRuns: 80 });
  });

  it('has the offsets of the largest machines', () => {
    const parts = { ...dissect(stateOf([[]]), MEMORY) };
    const out: Buffer[] = [];
    const section = new PageSection(parts, (bytes) => out.push(Buffer.from(bytes)));
    const offset = 8 * 1024 ** 3 - PAGE_BYTES;
    section.add(offset, Buffer.alloc(PAGE_BYTES));
    expect(Buffer.concat(out).readBigUInt64BE(5)).toBe(BigInt(offset) + 0x02n);
  });
});

describe('a template’s state', () => {
  it('is refused when its memory breaks off anywhere', () => {
    const state = stateOf([[{ page: 1, fill: 1 }], [{ page: 0, fill: 0 }]]);
    for (let length = 0; length < state.length - devices('of the template').length; length++)
      expect(() => dissect(state.subarray(0, length), MEMORY)).toThrow(RamStreamError);
  });

  it('is refused when the memory is in it, or is none of this size', () => {
    expect(() => dissect(stateOf([[{ page: 1, fill: 1 }]], 'ram'), MEMORY)).toThrow(/the memory is in the stream/);
    expect(() => dissect(stateOf([[]]), 2 * MEMORY)).toThrow(/not those of this machine/);
  });

  it('is taken or refused, and nothing else, when it is no such stream', () => {
    const good = stateOf([[{ page: 1, fill: 1 }]]);
    const damaged = fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
      const bytes = Buffer.from(good);
      bytes[at] = (bytes[at] ?? 0) ^ change;
      return bytes;
    });
    const noise = fc.uint8Array({ maxLength: 20_000 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(damaged, noise), (stream) => {
        try {
          const { head, tail } = dissect(stream, MEMORY);
          expect(head.length + tail.length).toBeLessThanOrEqual(stream.length);
        } catch (error) {
          if (!(error instanceof RamStreamError)) throw error;
        }
      }),
      { numRuns: 1500 },
    );
  });
});

describe('the state of devices', () => {
  const parts = dissect(stateOf([[]]), MEMORY);

  it('is refused when it is another machine’s, or not whole', () => {
    const other = Buffer.from(PREAMBLE);
    other[PREAMBLE.length - 1] = 0x32;
    for (const stream of [Buffer.concat([other, devices('x')]), Buffer.from('noise'), Buffer.alloc(0), VERSION])
      expect(() => devicesOf(stream, parts)).toThrow(/not those of the template/);
    const whole = Buffer.concat([PREAMBLE, devices('x')]);
    expect(() => devicesOf(whole.subarray(0, -1), parts)).toThrow(/broke off/);
  });
});
