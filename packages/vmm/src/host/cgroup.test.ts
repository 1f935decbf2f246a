import { access } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { diskUnder } from './cgroup.ts';

it('the disk under a file is a whole one that the kernel knows', async () => {
  const disk = await diskUnder(import.meta.filename);
  // None under an overlay, as in a container.
  if (disk === undefined) return;
  await access(`/sys/dev/block/${disk}`);
  await expect(access(`/sys/dev/block/${disk}/partition`)).rejects.toMatchObject({ code: 'ENOENT' });
});

it('there is none under what is no file, or on no disk', async () => {
  expect(await diskUnder(`${import.meta.filename}/nothing`)).toBeUndefined();
  expect(await diskUnder('/proc/self/status')).toBeUndefined();
});
