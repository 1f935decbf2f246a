/** What a daemon may not leave behind: processes, sockets, run directories. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export type Leftovers = {
  /** Command lines of processes that work in the directory or name it. */
  readonly processes: readonly string[];
  /** Run directories of microVMs, with the sockets and overlays in them. */
  readonly files: readonly string[];
};

/** A process that was just killed is still listed until its parent has reaped it. */
const REAPED_WITHIN_MS = 60_000;

/** @param dataDirectory of a daemon that has stopped */
export async function leftoversOf(dataDirectory: string): Promise<Leftovers> {
  const run = join(dataDirectory, 'run');
  const files = await readdir(run, { recursive: true }).catch(() => []);
  // Jails are below a directory that bears the executable's name, and stays.
  const jails = (await readdir(join(dataDirectory, 'jails'), { recursive: true }).catch(() => [])).filter((path) =>
    path.includes('/'),
  );
  const held = [join(dataDirectory, 'daemon.pid')];
  const present = await Promise.all(
    held.map((path) =>
      readFile(path).then(
        () => [path],
        () => [],
      ),
    ),
  );
  return { processes: await processesOf(dataDirectory), files: [...files, ...jails, ...present.flat()] };
}

/** @throws with what is left */
export async function assertNothingLeft(dataDirectory: string): Promise<void> {
  let left = await leftoversOf(dataDirectory);
  for (const until = Date.now() + REAPED_WITHIN_MS; left.processes.length > 0 && Date.now() < until; ) {
    await sleep(50);
    left = await leftoversOf(dataDirectory);
  }
  const found = [...left.processes, ...left.files];
  if (found.length > 0) throw new Error(`left behind in ${dataDirectory}:\n  ${found.join('\n  ')}`);
}

async function processesOf(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    // A process may end between two reads.
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (cwd.startsWith(directory) || command.includes(directory)) found.push(`${pid} ${command.replaceAll('\0', ' ')}`);
  }
  return found;
}
