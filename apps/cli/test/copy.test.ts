/** Copies: what a hostile sandbox could send, and files and directories both ways as the command line is used. */
import { execFileSync, spawn } from 'node:child_process';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import fc from 'fast-check';
import { InstaVM, type Sandbox } from 'instavm';
import { type Header, pack } from 'tar-stream';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { download } from '../src/copy/download.ts';
import { placeOf, targetOf } from '../src/copy/place.ts';
import { staysBelow, unpack } from '../src/copy/unpack.ts';
import { upload } from '../src/copy/upload.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-copy-'));
});
afterEach(() => rm(directory, { recursive: true }));

const LIMIT = { limitBytes: 10_000_000 };

type Member = Partial<Header> & { readonly name: string; readonly contents?: string };

/** What a sandbox could send: any header at all. */
async function archiveOf(...members: Member[]): Promise<AsyncIterable<Uint8Array>> {
  const archive = pack();
  for (const { contents, ...header } of members) archive.entry(header, contents ?? '');
  archive.finalize();
  return archive as AsyncIterable<Uint8Array>;
}

describe('unpacking what a sandbox sent', () => {
  it('makes files, directories and links with their permissions, and no set-user-id bits', async () => {
    const archive = await archiveOf(
      { name: 'bin', type: 'directory', mode: 0o750 },
      { name: 'bin/tool', mode: 0o4755, contents: 'run' },
      { name: 'bin/same', type: 'symlink', linkname: 'tool' },
      { name: 'up', type: 'symlink', linkname: './bin/../up' },
    );
    const { entries, leftOut } = await unpack(archive, directory, LIMIT);
    expect([entries, leftOut]).toEqual([4, ['up']]);
    expect((await stat(join(directory, 'bin/tool'))).mode & 0o7777).toBe(0o755);
    expect((await stat(join(directory, 'bin'))).mode & 0o7777).toBe(0o750);
    expect(await readlink(join(directory, 'bin/same'))).toBe('tool');
  });

  it.each<[string, Member[], RegExp]>([
    ['a name with ..', [{ name: 'a/../../out', contents: 'x' }], /outside the directory/],
    ['an absolute name', [{ name: '/tmp/out', contents: 'x' }], /outside the directory/],
    ['a device', [{ name: 'null', type: 'character-device' }], /neither a file/],
    ['a hard link', [{ name: 'passwd', type: 'link', linkname: '/etc/passwd' }], /neither a file/],
    ['a fifo', [{ name: 'pipe', type: 'fifo' }], /neither a file/],
  ])('refuses %s, and writes nothing', async (_, members, sentence) => {
    const target = join(directory, 'in');
    await mkdir(target);
    await expect(unpack(await archiveOf(...members), target, LIMIT)).rejects.toThrow(sentence);
    expect([await readdir(directory), await readdir(target)]).toEqual([['in'], []]);
  });

  it('leaves out links that lead out of the directory, and writes through no link that was there before', async () => {
    const target = join(directory, 'in');
    await mkdir(join(directory, 'secret'));
    await mkdir(target);
    await symlink('../secret', join(target, 'old'));
    const archive = await archiveOf(
      { name: 'abs', type: 'symlink', linkname: '/etc' },
      { name: 'rel', type: 'symlink', linkname: '../secret' },
      { name: 'rel/stolen', contents: 'x' },
    );
    expect((await unpack(archive, target, LIMIT)).leftOut).toEqual(['abs', 'rel']);
    const through = unpack(await archiveOf({ name: 'old/stolen', contents: 'x' }), target, LIMIT);
    await expect(through).rejects.toThrow(/in\/old is a symbolic link, and nothing is written through one/);
    expect(await readdir(join(directory, 'secret'))).toEqual([]);
  });

  it('ends at its limits, and at an archive that breaks off or is none', async () => {
    const big = { name: 'big', contents: 'x'.repeat(50_000) };
    await expect(unpack(await archiveOf(big), directory, { limitBytes: 20_000 })).rejects.toThrow(/larger than 20000/);
    const many = [1, 2, 3].map((one) => ({ name: String(one), contents: 'x' }));
    const limits = { ...LIMIT, maxEntries: 2 };
    await expect(unpack(await archiveOf(...many), directory, limits)).rejects.toThrow(/more than 2 files/);
    const pieces = async function* (bytes: Uint8Array) {
      yield bytes;
    };
    const whole: Uint8Array[] = [];
    for await (const piece of await archiveOf(big)) whole.push(piece);
    for (const broken of [Buffer.concat(whole).subarray(0, 30_000), Buffer.alloc(4_096, 'junk')])
      await expect(unpack(pieces(broken), directory, LIMIT)).rejects.toThrow(/no whole tar archive/);
  });

  it('tells of files with holes, which GNU tar writes in a form of its own', async () => {
    await mkdir(join(directory, 'from'));
    execFileSync('truncate', ['-s', '4M', join(directory, 'from/hole')]);
    const { stdout } = spawn('tar', ['-cSf', '-', '-C', join(directory, 'from'), 'hole'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await expect(unpack(stdout, directory, LIMIT)).rejects.toMatchObject({ path: 'hole' });
  });

  it('takes no link that any chain of links could lead out', () => {
    const step = fc.constantFrom('..', '.', 'a', 'b', '');
    fc.assert(
      fc.property(fc.array(step, { maxLength: 6 }), fc.array(step, { maxLength: 3 }), (target, at) => {
        const path = [...at.filter((one) => one !== '..'), 'link'].join('/').replace(/^\/+/, '');
        const depth = path.split('/').filter((one) => one !== '' && one !== '.').length - 1;
        const steps = target.filter((one) => one !== '' && one !== '.');
        const ups = steps.filter((one) => one === '..').length;
        const atBeginning = steps.slice(0, ups).every((one) => one === '..');
        const text = target.join('/');
        expect(staysBelow(path, text)).toBe(text !== '' && !text.startsWith('/') && atBeginning && ups <= depth);
      }),
    );
  });
});

describe('where a copy goes', () => {
  it('tells sandboxes from files', () => {
    expect(placeOf('3f2a:/root/a:b')).toEqual({ kind: 'sandbox', sandbox: '3f2a', path: '/root/a:b' });
    expect(placeOf('my web:/root')).toEqual({ kind: 'sandbox', sandbox: 'my web', path: '/root' });
    for (const local of ['./3f2a:/x', '/srv/web:/x', 'a/b:/x', ':/x']) expect(placeOf(local).kind).toBe('local');
    expect(placeOf('notes: today').kind).toBe('local');
    expect(placeOf('-').kind).toBe('stream');
    expect(() => placeOf('3f2a:notes')).toThrow(/begin with \//);
    expect([targetOf('a/b', '/x', true), targetOf('a/b', '/x', false), targetOf('a/.', '/x', true)]).toEqual([
      ...['/x/b', '/x', '/x'],
    ]);
    expect([targetOf('b', '/', true), targetOf('/srv/', 'out', true)]).toEqual(['/b', 'out/srv']);
  });
});

describe('copying to and from a sandbox', () => {
  let daemon: TestDaemon;
  let client: InstaVM;
  let sandbox: Sandbox;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
    sandbox = await client.sandboxes.create({ ttlSeconds: 3_600 });
  });
  afterAll(async () => {
    client.close();
    await daemon.stop();
  });

  const options = { user: undefined, asDirectory: false, limitBytes: 100_000_000 };
  const local = (path: string) => ({ kind: 'local', path: join(directory, path) }) as const;

  it('brings a tree there and back the same, names that tar could take for something else included', async () => {
    const tree = join(directory, 'tree');
    await mkdir(join(tree, 'deep/er'), { recursive: true });
    await writeFile(join(tree, '@at'), 'at');
    await writeFile(join(tree, '-dash'), 'dash');
    await writeFile(join(tree, 'deep/er/big'), Buffer.alloc(3_000_000, 7));
    await writeFile(join(tree, 'deep/日本 語'), 'wide');
    await chmod(join(tree, '-dash'), 0o741);
    await symlink('../@at', join(tree, 'deep/link'));
    const there = `/tmp/${crypto.randomUUID()}`;
    expect((await upload(local('tree'), sandbox, there, options)).to).toBe(there);
    expect((await upload(local('tree'), sandbox, there, options)).to).toBe(`${there}/tree`);
    const back = await download(sandbox, `${there}/tree`, local('back'), options);
    expect(back).toMatchObject({ to: join(directory, 'back'), leftOut: [] });
    expect((await readdir(join(directory, 'back'), { recursive: true })).sort()).toEqual(
      (await readdir(tree, { recursive: true })).sort(),
    );
    expect(await readFile(join(directory, 'back/deep/er/big'))).toEqual(Buffer.alloc(3_000_000, 7));
    expect((await stat(join(directory, 'back/-dash'))).mode & 0o777).toBe(0o741);
    expect(await readlink(join(directory, 'back/deep/link'))).toBe('../@at');
  });

  it('keeps permissions and times both ways, of files, trees and the directory that is made for one; not of one that was there', async () => {
    const [modified, now] = [new Date('2020-01-02T03:04:05Z'), Date.now() - 60_000];
    const tree = join(directory, 'tree');
    await mkdir(join(tree, 'deep/er'), { recursive: true });
    const files = Array.from({ length: 20 }, (_, number) => `deep/er/${number}`);
    for (const file of files) await writeFile(join(tree, file), 'x', { mode: 0o640 });
    for (const path of ['deep/er', 'deep', '.']) await chmod(join(tree, path), 0o750);
    for (const path of [...files, 'deep/er', 'deep', '.']) await utimes(join(tree, path), modified, modified);
    const paths = ['', '/deep', '/deep/er', '/deep/er/0', '/deep/er/19'];
    const there = `/tmp/${crypto.randomUUID()}`;
    await upload(local('tree'), sandbox, there, options);
    for (const path of paths) {
      const { mode, modifiedAt } = await sandbox.files.stat(there + path);
      expect([path, mode, modifiedAt]).toEqual([path, /\d$/.test(path) ? 0o640 : 0o750, modified]);
    }
    await download(sandbox, there, local('back'), options);
    for (const path of paths) {
      const { mode, mtime } = await stat(join(directory, 'back', path));
      expect([path, mode & 0o777, mtime]).toEqual([path, /\d$/.test(path) ? 0o640 : 0o750, modified]);
    }
    await mkdir(join(directory, 'present'), { mode: 0o700 });
    await sandbox.files.mkdir(`${there}/present`, { mode: 0o700 });
    await upload(local('tree/.'), sandbox, `${there}/present`, options);
    await download(sandbox, `${there}/deep/.`, local('present'), options);
    const [here, inside] = [await stat(join(directory, 'present')), await sandbox.files.stat(`${there}/present`)];
    expect([here.mode & 0o777, inside.mode]).toEqual([0o700, 0o700]);
    expect(Math.min(here.mtimeMs, inside.modifiedAt.getTime())).toBeGreaterThan(now);

    const exact = new Date('2021-01-01T00:00:00.250Z');
    await writeFile(join(directory, 'one'), 'x', { mode: 0o751 });
    await utimes(join(directory, 'one'), exact, exact);
    await upload(local('one'), sandbox, `${there}/one`, options);
    expect(await sandbox.files.stat(`${there}/one`)).toMatchObject({ mode: 0o751, modifiedAt: exact });
    await download(sandbox, `${there}/one`, local('one-back'), options);
    const { mode, mtime } = await stat(join(directory, 'one-back'));
    expect([mode & 0o777, mtime]).toEqual([0o751, exact]);
    await utimes(join(directory, 'one'), new Date('1960-01-01'), new Date('1960-01-01'));
    await upload(local('one'), sandbox, `${there}/one`, options);
    expect((await sandbox.files.stat(`${there}/one`)).modifiedAt.getTime()).toBeGreaterThan(now);
  });

  it('replaces a file as a whole or leaves it as it was', async () => {
    const there = `/tmp/${crypto.randomUUID()}`;
    await writeFile(join(directory, 'file'), 'old');
    await sandbox.files.write(there, 'x'.repeat(1_000), { mode: 0o600 });
    await expect(download(sandbox, there, local('file'), { ...options, limitBytes: 10 })).rejects.toThrow(/larger/);
    expect([await readFile(join(directory, 'file'), 'utf8'), await readdir(directory)]).toEqual(['old', ['file']]);
    await symlink('file', join(directory, 'link'));
    await download(sandbox, there, local('link'), options);
    expect((await readFile(join(directory, 'file'), 'utf8')).length).toBe(1_000);
    await expect(download(sandbox, '/nowhere', local('file'), options)).rejects.toMatchObject({
      code: 'file_not_found',
    });
    await expect(upload(local('nowhere'), sandbox, there, options)).rejects.toMatchObject({
      code: 'local_file_not_found',
    });
  });
});
