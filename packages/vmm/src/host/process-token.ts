/**
 * Which process something belongs to, as a short text that is of use after that process has ended: its pid alone would be another's by then,
 * and in another pid namespace (a container that shares a directory with us) it is one that we cannot see.
 */
import { readFileSync, readlinkSync } from 'node:fs';

const TOKEN = /^(?<namespace>\d+)\.(?<pid>\d+)\.(?<startTicks>\d+)$/;

/**
 * When a process started, in the kernel's ticks since boot (proc(5), stat field 22); undefined when it has ended. A zombie has.
 * @throws what else kept it from being read: a daemon without a descriptor to spare cannot tell
 */
export function startTicksOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // No such process: when it was opened, or when it was read.
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
  // The name may hold anything, also parentheses; the fields after it are numbers.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' ? undefined : fields[19];
}

/** Digits and dots, so that it can be part of a file's name. */
export const processToken = (pid = process.pid): string => `${pidNamespace()}.${pid}.${startTicksOf(pid) ?? 0}`;

/** @returns `unknown` for what is no token, or one of another pid namespace, and when nobody can tell now */
export function fateOf(token: string): 'runs' | 'ended' | 'unknown' {
  const { namespace, pid, startTicks } = TOKEN.exec(token)?.groups ?? {};
  if (namespace === undefined || namespace !== pidNamespace()) return 'unknown';
  try {
    return startTicksOf(Number(pid)) === startTicks ? 'runs' : 'ended';
  } catch {
    return 'unknown';
  }
}

/** `pid:[4026531836]` */
const pidNamespace = (): string => readlinkSync('/proc/self/ns/pid').replace(/\D/g, '');
