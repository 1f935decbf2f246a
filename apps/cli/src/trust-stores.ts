/** Where this machine keeps the certificate authorities that it trusts: the system's store, and the NSS databases of Chromium and Firefox. */
import { execFile } from 'node:child_process';
import { access, constants, glob, mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export type SystemStore = {
  readonly name: string;
  /** Run in order, as root. */
  readonly commands: readonly (readonly string[])[];
};

type Exists = (path: string) => Promise<boolean>;

/** @returns undefined on a system that we do not know */
export async function systemStore(
  certPath: string,
  domain: string,
  platform: NodeJS.Platform = process.platform,
  exists: Exists = isThere,
): Promise<SystemStore | undefined> {
  if (platform === 'darwin') {
    const keychain = '/Library/Keychains/System.keychain';
    const add = ['security', 'add-trusted-cert', '-d', '-r', 'trustRoot', '-p', 'ssl', '-k', keychain, certPath];
    return { name: keychain, commands: [add] };
  }
  const known = [
    { directory: '/usr/local/share/ca-certificates', extension: 'crt', update: 'update-ca-certificates' },
    { directory: '/etc/pki/ca-trust/source/anchors', extension: 'pem', update: 'update-ca-trust' },
  ];
  for (const { directory, extension, update } of known) {
    if (!(await exists(directory))) continue;
    const install = ['install', '-m', '644', certPath, `${directory}/instavm-${domain}.${extension}`];
    return { name: directory, commands: [install, [update]] };
  }
  return undefined;
}

/** @throws the first command that fails */
export async function addToSystem({ commands }: SystemStore): Promise<void> {
  for (const [command = '', ...argv] of commands) await run(command, argv);
}

/**
 * Chromium's database, which is made when it is not there yet, and those of Firefox's profiles.
 * @returns the databases; undefined without certutil(1)
 */
export async function addToBrowsers(certPath: string, domain: string): Promise<string[] | undefined> {
  const certutil = await find('certutil');
  if (certutil === undefined) return undefined;
  const home = homedir();
  const directories: string[] = [];
  if (process.platform !== 'darwin') {
    const chromium = join(home, '.pki', 'nssdb');
    if (!(await isThere(join(chromium, 'cert9.db')))) {
      await mkdir(chromium, { recursive: true, mode: 0o700 });
      await run(certutil, ['-N', '-d', `sql:${chromium}`, '--empty-password']);
    }
    directories.push(chromium);
  }
  const firefox = [
    '.mozilla/firefox/*/cert9.db',
    'snap/firefox/common/.mozilla/firefox/*/cert9.db',
    'Library/Application Support/Firefox/Profiles/*/cert9.db',
  ];
  for await (const database of glob(firefox, { cwd: home })) directories.push(dirname(join(home, database)));
  for (const directory of directories) {
    const nickname = `InstaVM local previews (${domain})`;
    await run(certutil, ['-A', '-d', `sql:${directory}`, '-t', 'C,,', '-n', nickname, '-i', certPath]);
  }
  return directories;
}

async function find(program: string): Promise<string | undefined> {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, program);
    if (await isThere(path, constants.X_OK)) return path;
  }
  return undefined;
}

const isThere = (path: string, mode = constants.F_OK): Promise<boolean> =>
  access(path, mode).then(
    () => true,
    () => false,
  );

/** As a person would type it. */
export const shellLine = (commands: readonly (readonly string[])[], prefix: string): string =>
  commands.map((argv) => [prefix, ...argv.map(quoted)].join(' ')).join(' && ');

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
