/** The command line with a real guest: what the fake one cannot show. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const INSTAVM = resolve(import.meta.dirname, '../../apps/cli/bin/instavm');

/** 2020-01-02T03:04:05Z */
const MODIFIED = 1_577_934_245;

let daemon: TestDaemon;
let directory: string;
let sandbox: string;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'qemu' });
  directory = await mkdtemp(join(tmpdir(), 'instavm-cli-'));
  sandbox = (await instavm('new', '--ttl', '15m')).trim();
});
afterAll(async () => {
  await daemon?.stop();
  await rm(directory, { recursive: true });
});

async function instavm(...args: string[]): Promise<string> {
  const own = { INSTAVM_BASE_URL: daemon.baseUrl, INSTAVM_API_KEY: daemon.apiKey, NODE_COMPILE_CACHE: directory };
  return (await promisify(execFile)(INSTAVM, args, { cwd: directory, env: { ...process.env, ...own } })).stdout;
}

describe('instavm cp, with a guest', () => {
  it('takes files with holes out of a directory, whose links out stay behind', async () => {
    const script =
      'mkdir -p /srv/d/sub; cd /srv/d; truncate -s 4M sub/hole; echo end >> sub/hole; echo plain > plain; chmod 640 plain; ln -s plain in; ln -s /etc/passwd out; chmod 750 . sub; touch -d 2020-01-02T03:04:05Z plain sub/hole sub .';
    await instavm('exec', sandbox, 'sh', '-c', script);
    const [copied] = JSON.parse(await instavm('cp', `${sandbox}:/srv/d`, 'back', '--json'));
    expect(copied).toMatchObject({ to: join(directory, 'back'), leftOut: ['out'] });
    expect((await readdir(join(directory, 'back'), { recursive: true })).sort()).toEqual(
      ['in', 'plain', 'sub', 'sub/hole'].sort(),
    );
    const hole = await readFile(join(directory, 'back/sub/hole'));
    expect([hole.length, hole.subarray(-4).toString()]).toEqual([4 * 1024 * 1024 + 4, 'end\n']);
    for (const path of ['plain', 'sub/hole', 'sub', '.'])
      expect([path, (await stat(join(directory, 'back', path))).mtime]).toEqual([path, new Date(MODIFIED * 1000)]);
    expect((await stat(join(directory, 'back'))).mode & 0o777).toBe(0o750);
  });

  it('brings a directory in as root, whoever owns it here, with its permissions and times', async () => {
    await instavm('cp', 'back', `${sandbox}:/opt/`);
    const told = await instavm('exec', sandbox, 'stat', '-c', '%U:%G %a %s %N', '/opt/back/plain', '/opt/back/in');
    expect(told).toBe("root:root 640 6 '/opt/back/plain'\nroot:root 777 5 '/opt/back/in' -> 'plain'\n");
    await instavm('cp', 'back/plain', `${sandbox}:/opt/one`);
    const paths = ['/opt/back', '/opt/back/sub', '/opt/back/sub/hole', '/opt/one'];
    const times = await instavm('exec', sandbox, 'stat', '-c', '%a %Y', ...paths);
    expect(times).toBe(['750', '750', '644', '640'].map((mode) => `${mode} ${MODIFIED}\n`).join(''));
    expect(await instavm('cp', `${sandbox}:/opt/back/in`, '-')).toBe('plain\n');
  });
});

describe('a command in the background', () => {
  it('is followed to its end, whose exit code is passed on', async () => {
    const terminal = (await instavm('exec', '--detach', sandbox, 'sh', '-c', 'seq 3; exit 6')).trim();
    await expect(instavm('logs', sandbox, terminal, '--follow')).rejects.toMatchObject({
      code: 6,
      stdout: '1\n2\n3\n',
    });
  });
});
