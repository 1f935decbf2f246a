/** Pruning templates of a cache that several data directories share, with small files in place of memory. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { inheritedEnvironment } from '@instavm/testing';
import { processToken } from '@instavm/vmm/host-files';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseCommandLine } from '../src/command-line.ts';
import { dataPaths } from '../src/data-directory.ts';
import { listTemplatesCommand, pruneTemplatesCommand } from '../src/templates/commands.ts';
import { pruneTemplates } from '../src/templates/prune.ts';
import { holdAllOf } from '../src/templates/recording.ts';
import { recordedUses, TemplateUses, usesDirectory, withTemplatesLocked } from '../src/templates/uses.ts';

const INSTAVMD = fileURLToPath(new URL('../bin/instavmd', import.meta.url));
const ALL = { dryRun: false, unrecorded: true };
const RECORDED = { dryRun: false, unrecorded: false };

describe('templates of a shared cache', () => {
  let root: string;
  let cache: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'instavm-templates-test-'));
    cache = join(root, 'cache');
    await mkdir(join(cache, 'templates'), { recursive: true });
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const keyOf = (name: string): string => Buffer.from(name.padEnd(16)).toString('hex');
  const write = async (path: string, contents: unknown): Promise<void> => {
    await mkdir(join(root, path, '..'), { recursive: true });
    await writeFile(join(root, path), JSON.stringify(contents));
  };
  const template = async (name: string): Promise<void> => {
    const made = { key: keyOf(name), madeBy: 'QEMU 7.2', accelerator: 'tcg', memoryMib: 512, vcpus: 1 };
    await write(`cache/templates/${keyOf(name)}/template.json`, { ...made, stateSha256Hex: 'aa' });
  };
  const savedState = (data: string, name: string): Promise<void> =>
    write(`${data}/snapshots/files_${name}/snapshot.json`, { templateKey: keyOf(name) });
  const microVm = (data: string, name: string): Promise<void> =>
    write(`${data}/run/vm_${name}/vmm.json`, { templateKey: keyOf(name) });
  const jail = (data: string, name: string): Promise<void> =>
    write(`${data}/jails/firecracker/vm-${name}/vmm.json`, { templateKey: keyOf(name) });
  const usesOf = (data: string): TemplateUses => new TemplateUses(cache, join(root, data));
  /** As if the daemon that recorded it had been killed. */
  const endDaemons = async (token = processToken().replace(/\d+$/, '1')): Promise<void> => {
    for (const { path, dataDirectory } of [...(await recordedUses(cache)).values()].flat())
      await writeFile(path, JSON.stringify({ dataDirectory, daemon: token }));
  };
  const prune = (options = RECORDED, data = 'mine') => pruneTemplates(cache, join(root, data), options);
  const left = async (): Promise<string[]> =>
    (await readdir(join(cache, 'templates')))
      .filter((name) => name !== '.used')
      .map((key) => Buffer.from(key, 'hex').toString().trim())
      .sort();

  it('stay for what a running daemon took up, and go after it has ended', async () => {
    for (const name of ['known', 'other']) await template(name);
    await mkdir(join(root, 'mine'));
    await usesOf('mine').hold(keyOf('known'));
    await usesOf('gone').hold(keyOf('other'));
    expect((await prune()).removed).toEqual([]);
    await endDaemons();
    const { removed, vanished } = await prune();
    expect([removed.length, await left(), vanished]).toEqual([2, [], [join(root, 'gone')]]);
    // Who is there is looked into the next time too; who is gone is forgotten.
    const recorded = [...(await recordedUses(cache)).values()].flat();
    expect(recorded.map((use) => use.dataDirectory)).toEqual([join(root, 'mine')]);
  });

  it('stay for saved states and microVMs, also in data directories of other daemons, and for no others', async () => {
    const kinds = { saved: savedState, running: microVm, jailed: jail };
    for (const [name, make] of Object.entries(kinds)) {
      await template(name);
      await make('theirs', name);
    }
    await template('unused');
    await usesOf('theirs').hold(keyOf('unused'));
    await holdAllOf(dataPaths(join(root, 'theirs')), usesOf('theirs'));
    await endDaemons();
    const { removed, kept } = await prune();
    expect([removed.map((each) => each.key), await left()]).toEqual([
      [keyOf('unused')],
      ['jailed', 'running', 'saved'],
    ]);
    const theirs = { dataDirectory: join(root, 'theirs'), daemonRuns: false };
    expect(kept.find((each) => each.key === keyOf('saved'))).toMatchObject({
      ...{ memoryMib: 512, vcpus: 1, madeBy: 'QEMU 7.2', accelerator: 'tcg', backend: 'qemu' },
      neededBy: [{ ...theirs, savedStates: ['files_saved'], microVms: [] }],
    });
    await rm(join(root, 'theirs/run'), { recursive: true });
    await rename(join(root, 'theirs/snapshots'), join(root, 'theirs/elsewhere'));
    await prune();
    expect(await left()).toEqual(['jailed']);
  });

  it('of which no use was recorded stay, unless that is asked for; what our own data directory needs stays always', async () => {
    for (const name of ['old', 'needed']) await template(name);
    await savedState('mine', 'needed');
    await prune();
    expect(await left()).toEqual(['needed', 'old']);
    expect((await prune({ dryRun: true, unrecorded: true })).removed.map((each) => each.key)).toEqual([keyOf('old')]);
    expect(await left()).toEqual(['needed', 'old']);
    await prune(ALL);
    expect(await left()).toEqual(['needed']);
  });

  it('stay for daemons that cannot be seen while those say that they run, and for directories that cannot be read', async () => {
    for (const name of ['container', 'closed']) await template(name);
    await usesOf('container').hold(keyOf('container'));
    await writeFile(join(root, 'file'), '');
    await usesOf('file').hold(keyOf('closed'));
    await endDaemons(processToken().replace(/^\d+/, '1'));
    const used = join(usesDirectory(cache), keyOf('closed'));
    for (const name of await readdir(used)) await utimes(join(used, name), 0, 0);
    await prune();
    expect(await left()).toEqual(['closed', 'container']);
    const own = join(usesDirectory(cache), keyOf('container'));
    for (const name of await readdir(own)) await utimes(join(own, name), 0, 0);
    await prune();
    expect(await left()).toEqual(['closed']);
  });

  it('are not taken away while a use is being recorded, nor the other way round', async () => {
    await template('contested');
    await usesOf('mine').hold(keyOf('contested'));
    await endDaemons();
    let pruning: Promise<unknown> | undefined;
    await withTemplatesLocked(cache, async () => {
      pruning = prune();
      expect(await left()).toContain('contested');
      // A daemon of another data directory: it has the lock, and records its use.
      const [path] = await readdir(join(usesDirectory(cache), keyOf('contested')));
      const use = JSON.stringify({ dataDirectory: join(root, 'late'), daemon: processToken() });
      await writeFile(join(usesDirectory(cache), keyOf('contested'), `late-${path}`), use);
    });
    await pruning;
    expect(await left()).toEqual(['contested']);
    const recording = Promise.all(['a', 'b', 'c'].map((name) => usesOf(name).hold(keyOf('contested'))));
    await Promise.all([recording, prune(ALL), prune(ALL)]);
    expect((await recordedUses(cache)).get(keyOf('contested'))).toHaveLength(4);
  });

  it('are listed and pruned by `instavmd templates`, for people and for programs', async () => {
    for (const name of ['saved', 'unused']) await template(name);
    await savedState('mine', 'saved');
    await usesOf('mine').hold(keyOf('unused'));
    await endDaemons();
    const config = { INSTAVM_DATA_DIR: join(root, 'mine'), INSTAVM_CACHE_DIR: cache };
    const listed = await listTemplatesCommand(config, { json: false });
    expect(listed).toContain(`needed by ${join(root, 'mine')}: saved states files_saved`);
    expect(listed).toMatch(/512 MiB, 1 vCPU {2}qemu \(tcg\)\n {4}QEMU 7.2\n {4}last used: \d{4}-/);
    expect(JSON.parse(await listTemplatesCommand(config, { json: true })).templates).toHaveLength(2);
    const dry = await pruneTemplatesCommand(config, { json: false, dryRun: true, unrecorded: false });
    expect(dry).toContain(`would remove ${keyOf('unused')}`);
    expect(await left()).toEqual(['saved', 'unused']);
    const args = ['templates', 'prune', '--json'];
    const { stdout } = await promisify(execFile)(INSTAVMD, args, { env: { ...inheritedEnvironment(), ...config } });
    const { removed, kept } = JSON.parse(stdout);
    expect([removed[0].key, kept[0].neededBy[0].savedStates]).toEqual([keyOf('unused'), ['files_saved']]);
    expect(await left()).toEqual(['saved']);
  });
});

describe('the command line', () => {
  it('takes each option with the command that it is for, and no other', () => {
    const kind = 'templates prune';
    const { command } = parseCommandLine(['templates', 'prune', '--dry-run', '--unrecorded']);
    expect(command).toEqual({ kind, dryRun: true, unrecorded: true, json: false });
    expect(parseCommandLine(['templates', '--json']).command).toEqual({ kind: 'templates', json: true });
    expect(() => parseCommandLine(['templates', '--dry-run'])).toThrow('--dry-run is for templates prune');
    expect(() => parseCommandLine(['--json'])).toThrow('--json is for templates and templates prune');
    expect(() => parseCommandLine(['backup', 'x', '--data-dir', 'y'])).toThrow('--data-dir is for restore');
    expect(() => parseCommandLine(['templates', 'remove'])).toThrow('there is no command "templates remove"');
  });
});
