/** What the kernel tells of a process, or of one thread of it: proc_pid_status(5). */
import { readFile } from 'node:fs/promises';

export async function procStatus(pid: number | undefined, thread = pid): Promise<Readonly<Record<string, string>>> {
  const lines = (await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8')).split('\n');
  return Object.fromEntries(lines.map((line) => line.split(':\t')));
}
