import { expect, it } from 'vitest';
import { snapshotFailure } from './failure.ts';

it.each([
  ["ENOENT: no such file or directory, open '/var/lib/instavm/snapshots/.partial-1/state'", "directory, open 'state'"],
  ['cp failed: cp: error reading /proc/self/fd/3: I/O error', 'cp: error reading 3: I/O error'],
  ['PUT /snapshot/create: no answer within 1/2 s', 'PUT /snapshot/create: no answer within 1/2 s'],
])('a snapshot that failed says why, and not where files of the host are: %s', (message, said) => {
  const failure = snapshotFailure(new Error(message));
  expect(failure).toMatchObject({ code: 'snapshot_failed', message: expect.stringContaining(said) });
  expect(failure.message).not.toContain('/var/lib');
});
