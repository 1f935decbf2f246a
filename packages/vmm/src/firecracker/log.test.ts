import { constants } from 'node:fs';
import { type FileHandle, mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FifoLog, makeFifo } from './log.ts';

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-log-'));
  path = join(directory, 'log');
});
afterEach(() => rm(directory, { recursive: true }));

/** As Firecracker does. */
const writer = (): Promise<FileHandle> => open(path, constants.O_WRONLY | constants.O_NONBLOCK);
const opened = (): FifoLog => {
  const log = FifoLog.open(path);
  if (log === undefined) throw new Error('there is no FIFO');
  return log;
};

describe('a log', () => {
  it('has what was said last, also when who said it is gone', async () => {
    await makeFifo(path);
    const log = opened();
    const firecracker = await writer();
    await firecracker.write('first\nlast\n');
    await firecracker.close();
    expect(log.tail()).toBe('first\nlast\n');
    log.close();
    expect(log.tail()).toBe('first\nlast\n');
  });

  it('of who never stops is read at leisure, and only its end is kept', async () => {
    await makeFifo(path);
    const log = opened();
    const firecracker = await writer();
    const line = Buffer.alloc(4096, 'x');
    let taken = 0;
    for (const until = performance.now() + 700; performance.now() < until; await new Promise(setImmediate))
      await firecracker.write(line).then(
        () => (taken += line.length),
        (error: NodeJS.ErrnoException) => expect(error.code).toBe('EAGAIN'),
      );
    expect(taken).toBeGreaterThan(64 * 1024);
    expect(taken).toBeLessThan(1024 * 1024);
    log.tail();
    await firecracker.write('the end');
    expect(log.tail()).toMatch(/^x+the end$/);
    expect(log.tail().length).toBe(8 * 1024);
    await firecracker.close();
    log.close();
  });

  it('is taken up by the next reader', async () => {
    await makeFifo(path);
    const first = opened();
    const firecracker = await writer();
    first.close();
    const next = opened();
    await firecracker.write('more');
    expect(next.tail()).toBe('more');
    await firecracker.close();
    next.close();
  });

  it('is none where there is something else than a FIFO', async () => {
    expect(FifoLog.open(path)).toBeUndefined();
    await writeFile(path, 'a file');
    expect(FifoLog.open(path)).toBeUndefined();
    await makeFifo(join(directory, 'fifo'));
    await symlink('fifo', join(directory, 'link'));
    expect(FifoLog.open(join(directory, 'link'))).toBeUndefined();
  });
});
