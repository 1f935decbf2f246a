import { constants } from 'node:fs';
import { type FileHandle, mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FifoReader, makeFifos } from './fifo.ts';
import { FifoLog } from './log.ts';

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-log-'));
  path = join(directory, 'log');
});
afterEach(() => rm(directory, { recursive: true }));

/** As Firecracker does. */
const writer = (): Promise<FileHandle> => open(path, constants.O_WRONLY | constants.O_NONBLOCK);

describe('a log', () => {
  it('has what was said last, also when who said it is gone', async () => {
    await makeFifos(path);
    const log = new FifoLog(path);
    const firecracker = await writer();
    await firecracker.write('first\nlast\n');
    await firecracker.close();
    expect(log.tail()).toBe('first\nlast\n');
    log.close();
    expect(log.tail()).toBe('first\nlast\n');
  });

  it('of who never stops is read at leisure, and only its end is kept', async () => {
    await makeFifos(path);
    const log = new FifoLog(path);
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
    await makeFifos(path);
    const first = new FifoLog(path);
    const firecracker = await writer();
    first.close();
    const next = new FifoLog(path);
    await firecracker.write('more');
    expect(next.tail()).toBe('more');
    await firecracker.close();
    next.close();
  });

  it('is read in order, whatever was read already', async () => {
    await makeFifos(path);
    const taken: Buffer[] = [];
    const reader = FifoReader.open(path, (piece) => taken.push(Buffer.from(piece)));
    const firecracker = await writer();
    for (let n = 0; n < 30; n++) {
      await firecracker.write(`${n} `);
      if (n % 7 === 6) await sleep(20);
    }
    reader?.drain();
    expect(Buffer.concat(taken).toString()).toBe(Array.from({ length: 30 }, (_, n) => `${n} `).join(''));
    await firecracker.close();
    reader?.close();
  });

  it('is empty where there is something else than a FIFO', async () => {
    const open = (at: string): FifoReader | undefined => FifoReader.open(at, () => {});
    expect(open(path)).toBeUndefined();
    expect(new FifoLog(path).tail()).toBe('');
    await writeFile(path, 'a file');
    expect(open(path)).toBeUndefined();
    await makeFifos(join(directory, 'fifo'));
    await symlink('fifo', join(directory, 'link'));
    expect(open(join(directory, 'link'))).toBeUndefined();
  });
});
