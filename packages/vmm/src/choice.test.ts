import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { judgeFirecracker } from './choice.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-choice-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** An executable that says what a release says of itself, and does nothing else. */
async function release(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, `#!/bin/sh\necho '${text}'\n`);
  await chmod(path, 0o755);
  return path;
}

const judge = (binaries: { firecracker: string; jailer: string }, dataDirectory = join(directory, 'data')) => {
  const host = { images: {} as GuestImages, binaries, cacheDirectory: directory, dataDirectory, probe: false };
  return judgeFirecracker(host, () => {});
};
/** Of the first thing that is missing; that is root for who is not. */
const refusal = (why: RegExp): object => ({
  usable: false,
  why: expect.stringMatching(process.getuid?.() === 0 ? why : /needs root/),
  remedy: expect.stringMatching(/^[A-Z].*\.$/),
});

describe('Firecracker cannot be used, and why is said', () => {
  it('without its binaries, on the search path or anywhere', async () => {
    const jailer = await release('jailer', 'Jailer v1.12.1');
    const named = { firecracker: 'no-such-firecracker', jailer };
    expect(await judge(named)).toEqual(refusal(/^there is no executable no-such-firecracker$/));
    const firecracker = await release('firecracker', 'Firecracker v1.12.1');
    const placed = { firecracker, jailer: join(directory, 'none') };
    expect(await judge(placed)).toEqual(refusal(/^there is no executable .*\/none$/));
  });

  it.each([
    ['v1.12.1', 'v1.13.0', /^Firecracker is 1\.12\.1, its jailer 1\.13\.0$/],
    ['v1.11.0', 'v1.11.0', /^Firecracker 1\.11\.0 is older than/],
    ['v1.16.0', 'v1.16.0', /^Firecracker 1\.16\.0 cannot be used: .*vsock/],
    ['', '', /does not say which version it is$/],
  ])('with Firecracker "%s" and jailer "%s"', async (ofFirecracker, ofJailer, why) => {
    const firecracker = await release('firecracker', `Firecracker ${ofFirecracker}`);
    const jailer = await release('jailer', `Jailer ${ofJailer}`);
    expect(await judge({ firecracker, jailer })).toEqual(refusal(why));
  });

  it('when jails could not link what is in the cache', async () => {
    const firecracker = await release('firecracker', 'Firecracker v1.12.1');
    const jailer = await release('jailer', 'Jailer v1.12.1');
    expect(await judge({ firecracker, jailer }, '/proc/nowhere')).toEqual(refusal(/on different filesystems/));
  });
});
