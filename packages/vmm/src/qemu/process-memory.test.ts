/** The memory of another process that maps a file privately, as QEMU does. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DESCRIPTORS } from './arguments.ts';
import { ProcessMemory, STRETCH_BYTES } from './process-memory.ts';
import { PAGE_BYTES } from './ram-stream.ts';

const BYTES = 3 * STRETCH_BYTES + 5 * PAGE_BYTES;
/** Reads one page, writes three: with something else, with zeros, and at the very end. */
const PROGRAM = `
import mmap, sys
memory = mmap.mmap(${DESCRIPTORS.memory}, ${BYTES}, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
assert memory[${PAGE_BYTES}] == 1
memory[${10 * PAGE_BYTES}] = 2
memory[${12 * PAGE_BYTES}:${13 * PAGE_BYTES}] = bytes(${PAGE_BYTES})
memory[${BYTES - 1}] = 3
print("mapped", flush=True)
sys.stdin.read()
`;

let directory: string;
let path: string;
let child: ChildProcess;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-memory-'));
  path = join(directory, 'memory');
  await writeFile(path, Buffer.alloc(BYTES, 1));
  const stdio: ('pipe' | 'inherit' | 'ignore' | number)[] = [
    'pipe',
    'pipe',
    'inherit',
    'ignore',
    'ignore',
    'ignore',
    'ignore',
  ];
  const file = openSync(path, 'r');
  stdio[DESCRIPTORS.memory] = file;
  child = spawn('python3', ['-c', PROGRAM], { stdio });
  closeSync(file);
  if (child.stdout !== null) await once(child.stdout, 'data');
});
afterAll(async () => {
  const ended = once(child, 'exit');
  child.stdin?.end();
  await ended;
  await rm(directory, { recursive: true });
});

const opened = (templatePath: string, bytes = BYTES): Promise<ProcessMemory> =>
  ProcessMemory.open(child.pid ?? 0, bytes, templatePath);

describe('the memory of a process', () => {
  it('tells where it was written to, and what is there', async () => {
    const memory = await opened(path);
    expect(await memory.written()).toEqual([
      { offset: 10 * PAGE_BYTES, length: 3 * PAGE_BYTES },
      { offset: BYTES - PAGE_BYTES, length: PAGE_BYTES },
    ]);
    const pages = Buffer.alloc(3 * PAGE_BYTES);
    await memory.read(pages, 10 * PAGE_BYTES);
    const expected = Buffer.alloc(3 * PAGE_BYTES, 1).fill(0, 2 * PAGE_BYTES);
    expected[0] = 2;
    expect(pages.equals(expected)).toBe(true);
    await memory.close();
  });

  it('is looked through as a whole when the file is not the one that it maps', async () => {
    const copy = join(directory, 'copy');
    await copyFile(path, copy);
    const memory = await opened(copy);
    const all = await memory.written();
    expect(all.map(({ length }) => length)).toEqual([...Array(3).fill(STRETCH_BYTES), 5 * PAGE_BYTES]);
    await memory.close();
  });

  it('is refused when it has another size, and when the process is gone', async () => {
    await expect(opened(path, BYTES + PAGE_BYTES)).rejects.toThrow(/no memory of the size/);
    await expect(ProcessMemory.open(2 ** 22 + 1, BYTES, path)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
