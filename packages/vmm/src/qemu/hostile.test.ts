/** A QEMU that a guest has taken over, as one that never was QEMU: what it does to its own microVM ends by a name, and nothing of it stays. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MicroVm, newIncarnationId, type TemplateKey, type Vmm, type VmSnapshot } from '@instavm/core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createQemuVmm, PRIVILEGES_ONLY, UNLIMITED } from './index.ts';

const KEY = 'f'.repeat(32) as TemplateKey;
const SIZE = { memoryMib: 1, vcpus: 1 };
const STATE = 'the device state';
const BUILD_ID = createHash('sha256').update(STATE).digest('hex');

/** Opens QEMU's sockets and answers every command, but for what `deeds` do instead. */
const impostor = (deeds: Readonly<Record<string, string>>): string => `#!${process.execPath}
const [fs, net] = [require('node:fs'), require('node:net')];
const deeds = { ${Object.entries(deeds).map(([command, deed]) => `${JSON.stringify(command)}: (socket) => { ${deed} }`)} };
for (const name of ['control.sock', 'egress.sock', 'qmp.sock'])
  net.createServer((socket) => {
    socket.on('error', () => {});
    if (name !== 'qmp.sock') return;
    socket.on('data', (line) => {
      const { execute } = JSON.parse(String(line));
      const deed = deeds[execute];
      const status = ['query-status', 'query-migrate'].includes(execute) ? { status: execute === 'query-status' ? 'running' : 'completed' } : {};
      if (deed?.(socket) !== 'silent') socket.write(JSON.stringify({ return: status }) + '\\n');
    });
  }).listen(name);
`;

let root: string;
let runDirectory: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'instavm-hostile-'));
  await chmod(root, 0o755);
  runDirectory = join(root, 'run');
  const template = join(root, 'templates', KEY);
  await mkdir(template, { recursive: true });
  for (const name of ['image', 'templates/memory']) await writeFile(join(root, name), '');
  for (const [name, text] of Object.entries({ memory: '', state: STATE, 'overlay.ext4': 'disk' }))
    await writeFile(join(template, name), text);
  const image = join(root, 'image');
  const manifest = {
    ...{ key: KEY, ...SIZE, accelerator: 'tcg', stateSha256Hex: BUILD_ID, memoryBytes: 0, overlayBytes: 4 },
    images: { kernelPath: image, initramfsPath: image, basePath: image },
  };
  await writeFile(join(template, 'template.json'), JSON.stringify(manifest));
});
afterAll(() => rm(root, { recursive: true, force: true }));

let vm: MicroVm | undefined;
afterEach(async () => {
  await vm?.kill();
  vm = undefined;
  expect(await readdir(runDirectory).catch(() => [])).toEqual([]);
});

async function vmmWith(deeds: Readonly<Record<string, string>>, site = root): Promise<Vmm> {
  const binary = join(root, `impostor-${createHash('sha256').update(JSON.stringify(deeds)).digest('hex').slice(0, 8)}`);
  await writeFile(binary, impostor(deeds), { mode: 0o755 });
  const directories = { templatesDirectory: join(site, 'templates'), runDirectory: join(site, 'run') };
  const versions = { accelerator: 'tcg', version: 'test', confinement: PRIVILEGES_ONLY, disk: UNLIMITED } as const;
  return createQemuVmm({ ...directories, ...versions, binary });
}

/** Its state says that it stands still, as that of every snapshot, so it has to be told to go on. */
const snapshot = async (): Promise<VmSnapshot> => {
  const directory = join(root, 'saved');
  await mkdir(directory, { recursive: true });
  for (const [name, text] of Object.entries({ state: STATE, 'overlay.ext4': 'disk' }))
    await writeFile(join(directory, name), text);
  const made = {
    templateKey: KEY,
    templateBuildId: BUILD_ID,
    size: SIZE,
    backend: 'qemu',
    accelerator: 'tcg',
  } as const;
  return { directory, ...made, storedBytes: 1 };
};

describe('a QEMU that is not itself', () => {
  it('and breaks off while it loads a snapshot is ended, whether it ends by itself or not', async () => {
    const { restore } = await vmmWith({ 'query-status': "socket.write('no JSON\\n'); return 'silent';" });
    await expect(restore(await snapshot(), newIncarnationId())).rejects.toMatchObject({
      code: 'boot_failed',
      message: 'QEMU does not answer while it loads the snapshot',
    });
  });

  it.each([
    ['a FIFO', "require('node:child_process').execFileSync('/usr/bin/mkfifo', ['overlay.ext4']);"],
    ['a link', "fs.symlinkSync('/etc/passwd', 'overlay.ext4');"],
  ])('and has put %s in place of its disk is not saved, which is said at once', async (_, put) => {
    const { restore } = await vmmWith({ stop: `fs.rmSync('overlay.ext4'); ${put}` });
    vm = await restore(await snapshot(), newIncarnationId());
    await expect(vm.snapshot(join(root, 'made'), 'continue')).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect((await readdir(root)).filter((name) => name.startsWith('made') || name.startsWith('.'))).toEqual([]);
  });
});

it('A saved state leads to no template outside of their directory, whatever its manifest says', async () => {
  const { directory } = await snapshot();
  const { findSnapshot } = await vmmWith({});
  const manifest = {
    ...{ ...SIZE, templateBuildId: BUILD_ID, accelerator: 'tcg', stateSha256Hex: BUILD_ID },
    ...{ stateBytes: 1, overlayStoredBytes: 1, overlayBytes: 4 },
  };
  const found = async (templateKey: string): Promise<VmSnapshot | undefined> => {
    await writeFile(join(directory, 'snapshot.json'), JSON.stringify({ ...manifest, templateKey }));
    return findSnapshot(directory);
  };
  expect(await found(KEY)).toMatchObject({ templateKey: KEY });
  expect(await found(`../templates/${KEY}`)).toBeUndefined();
});

it('A microVM is found again where a link leads to its directory, taken over or ended', async () => {
  const link = `${root}-link`;
  await symlink(root, link);
  try {
    const first = await vmmWith({}, link);
    const { pid, exited } = await first.restore(await snapshot(), newIncarnationId());
    const [survivor] = await (await vmmWith({}, link)).adoptSurvivors();
    expect(survivor?.pid).toBe(pid);
    expect(await (await vmmWith({}, link)).reapLeftovers()).toBe(1);
    expect((await exited).signal).toBe('SIGKILL');
  } finally {
    await rm(link);
  }
});
