/** The daemon as an operator installs it (docs/guides/operations.md): the unit, under the systemd that is PID 1 of the nested machine. */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../../scripts/steps/paths.ts';

export const DATA_DIRECTORY = '/var/lib/instavm/data';
export const BASE_URL = 'http://127.0.0.1:8787';
const NAME = 'instavmd';
const CONFIGURATION = '/etc/instavm/instavmd.yaml';
const UNIT = `/etc/systemd/system/${NAME}.service`;

const run = promisify(execFile);

/** @param others than the guide's, by their names in the file */
export async function install(others: Readonly<Record<string, string>>): Promise<void> {
  await mkdir('/etc/instavm', { recursive: true });
  const settings = {
    data_dir: DATA_DIRECTORY,
    cache_dir: '/var/lib/instavm/cache',
    listen: '127.0.0.1:8787',
    ...others,
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name}: ${JSON.stringify(value)}\n`);
  await writeFile(CONFIGURATION, lines.join(''), { mode: 0o600 });
  await copyFile(join(ROOT, 'packaging/systemd/instavmd.service'), UNIT);
  await systemctl('daemon-reload');
}

export async function uninstall(): Promise<void> {
  for (const path of [UNIT, CONFIGURATION, DATA_DIRECTORY]) await rm(path, { recursive: true, force: true });
  await systemctl('daemon-reload');
}

/** @param action with its options. @throws what systemctl says when it fails */
export async function systemctl(...action: readonly string[]): Promise<void> {
  await run('systemctl', [...action, ...(action[0] === 'daemon-reload' ? [] : [NAME])]);
}

/** @param properties as `systemctl show` names them */
export async function unitIs<Name extends string>(...properties: readonly Name[]): Promise<Record<Name, string>> {
  const { stdout } = await run('systemctl', ['show', `--property=${properties.join(',')}`, NAME]);
  const lines = stdout.trim().split('\n');
  const pairs = lines.map((line): [string, string] => [
    line.slice(0, line.indexOf('=')),
    line.slice(line.indexOf('=') + 1),
  ]);
  return Object.fromEntries(pairs) as Record<Name, string>;
}

export const mainPid = async (): Promise<number> => Number((await unitIs('MainPID')).MainPID);

/** Those that the unit has, as systemd counts them. */
export async function processes(): Promise<string[]> {
  const text = await readFile(`/sys/fs/cgroup/system.slice/${NAME}.service/cgroup.procs`, 'utf8').catch(() => '');
  return text.split('\n').filter(Boolean);
}

/** @returns what the daemons of this unit wrote, oldest first */
export async function journal(): Promise<string[]> {
  const from = [`--unit=${NAME}`, `--identifier=${NAME}`];
  const { stdout } = await run('journalctl', ['--quiet', '--output=cat', ...from], { maxBuffer: 64 * 1024 * 1024 });
  return stdout.trim().split('\n');
}

export const apiKey = async (): Promise<string> => (await readFile(join(DATA_DIRECTORY, 'admin.key'), 'utf8')).trim();
