/** The daemon's directory: one daemon at a time, and the administrator's key on the first start. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Accounts, takeExclusiveLock } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';

/** Of 32 bytes in base64url. */
const SECRET_LENGTH = 43;

/** Where things are in a data directory. */
export type DataPaths = {
  readonly databasePath: string;
  readonly runDirectory: string;
  /** Firecracker's; a directory of its own, since backends end what they do not know. */
  readonly jailsDirectory: string;
  readonly snapshotsDirectory: string;
  /** Of the certificate authority of previews and the secret of their links. */
  readonly previewDirectory: string;
  readonly adminKeyPath: string;
  readonly signInSecretPath: string;
};

export type DataDirectory = DataPaths & {
  /** Lets the next daemon in. */
  release(): void;
};

/** @throws conflict while another daemon lives there, and where others may enter */
export function openDataDirectory(path: string): DataDirectory {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  closeToOthers(path);
  const pidPath = join(path, 'daemon.pid');
  const unlock = takeExclusiveLock(join(path, 'daemon.lock'));
  if (unlock === undefined) {
    throw new InstaVMError('conflict', `another daemon${pidIn(pidPath)} uses the data directory ${path}`, {
      hint: 'Stop it, or set INSTAVM_DATA_DIR to another directory.',
    });
  }
  const paths = dataPaths(path);
  mkdirSync(paths.previewDirectory, { recursive: true, mode: 0o700 });
  writeFileSync(pidPath, `${process.pid}\n`, { mode: 0o600 });
  return {
    ...paths,
    release: () => {
      rmSync(pidPath, { force: true });
      unlock();
    },
  };
}

/** Of one that was there already. The database in it holds environments of sandboxes, and a VMM may read what every user may. @throws conflict */
function closeToOthers(path: string): void {
  if ((statSync(path).mode & 0o077) === 0) return;
  try {
    chmodSync(path, 0o700);
  } catch (cause) {
    throw new InstaVMError(
      'conflict',
      `other users may enter the data directory ${path}, which is not the daemon's own`,
      {
        cause,
        hint: 'Give it to the user of the daemon (chown), or set INSTAVM_DATA_DIR to another directory.',
      },
    );
  }
}

export const dataPaths = (directory: string): DataPaths => ({
  databasePath: join(directory, 'instavm.db'),
  runDirectory: join(directory, 'run'),
  jailsDirectory: join(directory, 'jails'),
  snapshotsDirectory: join(directory, 'snapshots'),
  previewDirectory: join(directory, 'preview'),
  adminKeyPath: join(directory, 'admin.key'),
  signInSecretPath: join(directory, 'sign-in.secret'),
});

/** For people; the lock itself does not rest on it. */
function pidIn(path: string): string {
  try {
    return ` (pid ${Number(readFileSync(path, 'utf8'))})`;
  } catch {
    return '';
  }
}

/**
 * On the first start only: an administrator, and a key that is written to `path` and nowhere else. The file is there before the
 * account is, so a start that is cut short between the two is simply done again.
 */
export async function createAdministrator(accounts: Accounts, path: string): Promise<boolean> {
  if ((await accounts.count()) > 0) return false;
  const keep = (key: string): void => writeSecret(path, key);
  await accounts.createWithKey('admin@localhost', 'Administrator', 'first start', keep, { isAdministrator: true });
  return true;
}

/** Signs the cookies of signed-in browsers: without it, what the database holds signs nobody in. Made on the first start. */
export function signInSecret(path: string): string {
  try {
    const secret = readFileSync(path, 'utf8').trim();
    if (secret.length >= SECRET_LENGTH) return secret;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const secret = randomBytes(32).toString('base64url');
  writeSecret(path, secret);
  return secret;
}

/** Whole or not at all. */
function writeSecret(path: string, secret: string): void {
  const partial = `${path}.partial`;
  rmSync(partial, { force: true });
  writeFileSync(partial, `${secret}\n`, { mode: 0o600, flush: true });
  renameSync(partial, path);
}
