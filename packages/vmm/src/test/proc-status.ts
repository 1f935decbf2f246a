/** What the kernel tells of a process, or of one thread of it: proc_pid_status(5), and of its network: proc_pid_net(5). */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';
import { expect } from 'vitest';

export async function procStatus(pid: number | undefined, thread = pid): Promise<Readonly<Record<string, string>>> {
  const lines = (await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8')).split('\n');
  return Object.fromEntries(lines.map((line) => line.split(':\t')));
}

/** For what may go between the listing of it and the look at it. */
export function unlessGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
}

/** Names of the files that it has open, other than devices. */
export async function openFiles(pid: number | undefined): Promise<string[]> {
  const descriptors = await readdir(`/proc/${pid}/fd`);
  const paths = await Promise.all(descriptors.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(unlessGone)));
  return paths
    .filter((path) => path?.startsWith('/') && !path.startsWith('/dev/'))
    .map((path) => basename(String(path)));
}

/** Its network is its own, with nothing in it but a loopback interface that is down: that has no address. */
export async function expectNoNetwork(pid: number | undefined): Promise<void> {
  expect(await readlink(`/proc/${pid}/ns/net`)).not.toBe(await readlink('/proc/self/ns/net'));
  const [devices, routes] = await Promise.all(
    ['dev', 'fib_trie'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'utf8')),
  );
  const names = devices?.trim().split('\n').slice(2);
  expect(names?.map((line) => line.trim().split(':')[0])).toEqual(['lo']);
  expect(routes).not.toContain('127.0.0.1');
}
