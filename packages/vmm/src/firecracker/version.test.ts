import { expect, test } from 'vitest';
import { parseVersion, unsupported } from './version.ts';

test('a version is read from the first line, whatever follows', () => {
  expect(parseVersion('Firecracker v1.12.1\n\nSupported snapshot data format versions: v5.0.0\n')).toEqual([1, 12, 1]);
  expect(parseVersion('Jailer v1.16.0-dirty\n')).toEqual([1, 16, 0]);
  expect(parseVersion('something else')).toBeUndefined();
});

test.each([
  [[1, 11, 9], 'Firecracker 1.11.9 is older than 1.12.0'],
  [[0, 25, 0], 'Firecracker 0.25.0 is older than 1.12.0'],
  [[1, 12, 0], undefined],
  [[1, 15, 3], undefined],
  [[1, 16, 1], undefined],
  [[2, 0, 0], undefined],
] as const)('version %j: %s', (version, why) => {
  expect(unsupported(version)).toBe(why);
});

test('1.16.0 is refused, with the reason', () => {
  expect(unsupported([1, 16, 0])).toMatch(/does not answer on its vsock/);
});
