import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CpioEntry, cpioArchive } from '../src/cpio.ts';

type Member = { path: string; mode: number; data: Buffer; major: number; minor: number };

/** Reads an archive back, strictly: magic, hexadecimal fields, four-byte borders, trailer at the end. */
function readArchive(archive: Buffer): Member[] {
  const members: Member[] = [];
  const aligned = (offset: number): number => Math.ceil(offset / 4) * 4;
  for (let offset = 0; ; ) {
    expect(archive.toString('latin1', offset, offset + 6)).toBe('070701');
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', offset + 6 + index * 8, offset + 14 + index * 8), 16);
    const [mode, size, major, minor, nameSize] = [field(1), field(6), field(9), field(10), field(11)];
    const nameAt = offset + 110;
    const path = archive.toString('utf8', nameAt, nameAt + nameSize - 1);
    expect(archive[nameAt + nameSize - 1]).toBe(0);
    const dataAt = aligned(nameAt + nameSize);
    const data = archive.subarray(dataAt, dataAt + size);
    offset = aligned(dataAt + size);
    if (path === 'TRAILER!!!') {
      expect(offset).toBe(archive.length);
      return members;
    }
    members.push({ path, mode, data: Buffer.from(data), major, minor });
  }
}

test('directories, files and devices are written as the kernel reads them', () => {
  const archive = cpioArchive([
    { type: 'directory', path: 'dev', mode: 0o755 },
    { type: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { type: 'file', path: 'init', mode: 0o755, data: Buffer.from('#!') },
  ]);
  expect(readArchive(archive)).toEqual([
    { path: 'dev', mode: 0o040755, data: Buffer.alloc(0), major: 0, minor: 0 },
    { path: 'dev/console', mode: 0o020600, data: Buffer.alloc(0), major: 5, minor: 1 },
    { path: 'init', mode: 0o100755, data: Buffer.from('#!'), major: 0, minor: 0 },
  ]);
});

test('names and contents of any length come back unchanged', () => {
  const name = fc.stringMatching(/^[a-z0-9._-]{1,40}$/).filter((text) => text !== 'TRAILER!!!');
  const file = fc.record({ path: name, data: fc.uint8Array({ maxLength: 300 }) });
  fc.assert(
    fc.property(fc.uniqueArray(file, { selector: (entry) => entry.path }), (files) => {
      const entries = files.map((entry): CpioEntry => ({ type: 'file', mode: 0o644, ...entry }));
      const back = readArchive(cpioArchive(entries)).map(({ path, data }) => ({ path, data: Uint8Array.from(data) }));
      expect(back).toEqual(files.map(({ path, data }) => ({ path, data: Uint8Array.from(data) })));
    }),
  );
});
