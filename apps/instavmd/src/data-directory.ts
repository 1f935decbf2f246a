/** The daemon's directory: one daemon at a time, and the administrator's key on the first start. */
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Accounts } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';

export type DataDirectory = {
  readonly databasePath: string;
  readonly runDirectory: string;
  readonly adminKeyPath: string;
  /** Lets the next daemon in. */
  release(): void;
};

/** @throws conflict while another daemon lives there */
export function openDataDirectory(path: string): DataDirectory {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const lock = join(path, 'daemon.pid');
  takeLock(lock);
  return {
    databasePath: join(path, 'instavm.db'),
    runDirectory: join(path, 'run'),
    adminKeyPath: join(path, 'admin.key'),
    release: () => rmSync(lock, { force: true }),
  };
}

/** The file names the process and when it started, so that a later process with the same number is not mistaken for it. */
function takeLock(lock: string): void {
  const own = `${process.pid} ${startTime(process.pid)}`;
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const descriptor = openSync(lock, 'wx', 0o600);
      writeFileSync(descriptor, own);
      closeSync(descriptor);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const [pid = '', started] = readFileSync(lock, 'utf8').split(' ');
    if (started !== undefined && startTime(Number(pid)) === started) {
      throw new InstaVMError('conflict', `another daemon (pid ${pid}) uses this data directory`, {
        hint: 'Stop it, or set INSTAVM_DATA_DIR to another directory.',
      });
    }
    unlinkSync(lock);
  }
  throw new InstaVMError('conflict', 'another daemon is starting in this data directory');
}

/** Clock ticks after boot, field 22 of /proc/<pid>/stat; undefined when there is no such process. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** On the first start only: an administrator, and a key that is written to `path` and nowhere else. */
export async function createAdministrator(accounts: Accounts, path: string): Promise<boolean> {
  if ((await accounts.count()) > 0) return false;
  const account = await accounts.create('admin@localhost', 'Administrator');
  const key = await accounts.createKey(account.id, 'first start');
  writeFileSync(path, `${key}\n`, { mode: 0o600 });
  return true;
}
