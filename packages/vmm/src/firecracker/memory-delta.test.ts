import { mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { smallDisk } from '@instavm/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sha256Hex } from '../host/files.ts';
import { applyDelta, keepsHoles, storeDelta, subtractMemory } from './memory-delta.ts';

const PAGE = 4096;
const PAGES = 64;
const SIZE = PAGES * PAGE;

let directory: string;
const at = (name: string): string => join(directory, name);
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-delta-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A file with pages of these values; the others are holes. */
async function sparse(name: string, pages: ReadonlyMap<number, number>): Promise<void> {
  await rm(at(name), { force: true });
  const file = await open(at(name), 'w');
  await file.truncate(SIZE);
  for (const [page, value] of pages) await file.write(Buffer.alloc(PAGE, value), 0, PAGE, page * PAGE);
  await file.sync();
  await file.close();
}

const store = async (isExact = true): Promise<string> => {
  await rm(at('delta'), { force: true });
  return storeDelta(at('sparse'), at('delta'), SIZE, isExact);
};

it('this filesystem keeps holes as they are', async () => {
  expect(await keepsHoles(directory)).toBe(true);
});

it('pages that were written, of zeros too, replace the ones below; holes leave them', async () => {
  const page = fc.nat({ max: PAGES - 1 });
  const changed = fc.uniqueArray(fc.tuple(page, fc.constantFrom(0, 1, 200)), { selector: ([number]) => number });
  await fc.assert(
    fc.asyncProperty(changed, async (pages) => {
      const expected = Buffer.alloc(SIZE, 7);
      await writeFile(at('memory'), expected);
      for (const [number, value] of pages) expected.fill(value, number * PAGE, (number + 1) * PAGE);
      await sparse('sparse', new Map(pages));
      expect(await store()).toBe(await sha256Hex(at('delta')));
      expect((await stat(at('delta'))).size).toBeLessThan((pages.length + 16) * PAGE);
      await applyDelta(at('delta'), at('memory'), SIZE);
      expect((await readFile(at('memory'))).equals(expected)).toBe(true);
    }),
    { numRuns: 25, examples: [[[]], [Array.from({ length: PAGES }, (_, number) => [number, 1] as [number, number])]] },
  );
});

it('what all of a memory differs in is what its pages are', async () => {
  const value = fc.constantFrom(0, 1, 7);
  const pages = fc.array(value, { minLength: PAGES, maxLength: PAGES });
  const of = (values: readonly number[]): Buffer => Buffer.concat(values.map((each) => Buffer.alloc(PAGE, each)));
  await fc.assert(
    fc.asyncProperty(pages, pages, async (ours, theirs) => {
      await writeFile(at('full'), of(ours));
      await writeFile(at('memory'), of(theirs));
      await rm(at('sparse'), { force: true });
      await subtractMemory(at('full'), at('memory'), at('sparse'), SIZE);
      await store();
      const differing = ours.filter((each, index) => each !== theirs[index]).length;
      expect((await stat(at('delta'))).size).toBeLessThan((differing + 8) * PAGE);
      await applyDelta(at('delta'), at('memory'), SIZE);
      expect((await readFile(at('memory'))).equals(of(ours))).toBe(true);
    }),
    { numRuns: 15 },
  );
});

it('what a full disk takes only a part of is not taken for all', async (context) => {
  const disk = await smallDisk(2);
  if (disk === undefined) return context.skip('this process may not mount a small filesystem');
  try {
    // Of two writes of a mebibyte the first finds room, and the second for all but a few pages.
    await writeFile(join(disk.path, 'other'), Buffer.alloc(12 * PAGE, 1));
    const memory = Buffer.alloc(4 * 1024 * 1024);
    await writeFile(at('memory'), memory);
    await writeFile(at('full'), memory.fill(1, 0, memory.length / 2));
    const subtracted = subtractMemory(at('full'), at('memory'), join(disk.path, 'sparse'), memory.length);
    await expect(subtracted).rejects.toMatchObject({ code: 'ENOSPC' });
  } finally {
    await disk.remove();
  }
});

it('where holes mean nothing, all of the memory is stored', async () => {
  await sparse('sparse', new Map([[3, 9]]));
  await store(false);
  await writeFile(at('memory'), Buffer.alloc(SIZE, 7));
  await applyDelta(at('delta'), at('memory'), SIZE);
  expect((await readFile(at('memory'))).equals(await readFile(at('sparse')))).toBe(true);
});

it('a file that grew beyond the memory is not stored', async () => {
  await writeFile(at('sparse'), Buffer.alloc(SIZE * 2));
  await expect(store()).rejects.toThrow('larger');
});

it('what is no difference of this memory is refused by name, whatever it is', async () => {
  await sparse(
    'sparse',
    new Map([
      [1, 1],
      [5, 5],
    ]),
  );
  await store();
  const good = await readFile(at('delta'));
  const memory = Buffer.alloc(SIZE, 7);
  const apply = async (bytes: Uint8Array): Promise<string> => {
    await writeFile(at('bad'), bytes);
    await writeFile(at('memory'), memory);
    return applyDelta(at('bad'), at('memory'), SIZE).then(
      () => 'applied',
      (error: Error) => error.name,
    );
  };
  expect(await apply(good)).toBe('applied');
  const map = good.indexOf('\n4096\n') - 1;
  const ofNothing = (count: number): Buffer =>
    Buffer.concat([good.subarray(0, map), Buffer.from(`${count}\n${'0\n0\n'.repeat(count)}`), Buffer.alloc(512)]);
  expect(await apply(ofNothing(PAGES))).toMatch(/^(applied|BadDelta)$/);
  // Each would be kept in memory.
  expect(await apply(ofNothing(200_000))).toBe('BadDelta');
  for (const cut of [0, 100, 512, 1024, 1536, 2100, 2560]) expect(await apply(good.subarray(0, cut))).toBe('BadDelta');
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: 4095 }), fc.nat({ max: 255 }), async (index, value) => {
      const bytes = Buffer.from(good);
      bytes[index] = value;
      expect(await apply(bytes)).toMatch(/^(applied|BadDelta)$/);
      expect((await stat(at('memory'))).size).toBe(SIZE);
    }),
    { numRuns: 60 },
  );
});
