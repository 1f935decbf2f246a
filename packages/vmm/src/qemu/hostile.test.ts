/** A QEMU that a guest has taken over, as one that never was QEMU: what it does to its own microVM ends by a name, and nothing of it stays. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type MicroVm, newIncarnationId, type TemplateKey, type Vmm, type VmSnapshot } from '@instavm/core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { DESCRIPTORS } from './arguments.ts';
import { createQemuVmm, PRIVILEGES_ONLY, UNLIMITED } from './index.ts';
import { devices, PREAMBLE, templateState } from './test/streams.ts';

const KEY = 'f'.repeat(32) as TemplateKey;
const SIZE = { memoryMib: 1, vcpus: 1 };
const MEMORY = SIZE.memoryMib * 1024 * 1024;
/** Also the size of the largest file that it may write. */
const DISK = 64 * 1024 * 1024;
const STATE = templateState(MEMORY, [[]]);
const BUILD_ID = createHash('sha256').update(STATE).digest('hex');

/** Maps its memory, opens QEMU's sockets and answers every command, but for what `deeds` do before, or instead: in Python, given `connection`. */
const impostor = (deeds: Readonly<Record<string, string>>): string => `#!/usr/bin/python3
import json, mmap, os, socket, threading
memory = mmap.mmap(${DESCRIPTORS.memory}, ${MEMORY}, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
memory[0] = 7
deeds = json.loads(${JSON.stringify(JSON.stringify(deeds))})
answers = {"query-status": {"status": "running"}, "query-migrate": {"status": "completed"}}
def serve(connection, name):
    for line in connection.makefile():
        command = json.loads(line)["execute"]
        if command == "xen-save-devices-state":
            open("devices", "wb").write(bytes.fromhex("${Buffer.concat([PREAMBLE, devices('own')]).toString('hex')}"))
        said = {"connection": connection, "os": os, "silent": False}
        exec(deeds.get(command, ""), said)
        if not said["silent"]:
            connection.sendall((json.dumps({"return": answers.get(command, {})}) + "\\n").encode())
def listen(name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], name), daemon=True).start()
for name in ("control.sock", "egress.sock", "qmp.sock"):
    threading.Thread(target=listen, args=(name,)).start()
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
  for (const [name, text] of Object.entries({ memory: Buffer.alloc(MEMORY), state: STATE, 'overlay.ext4': '' }))
    await writeFile(join(template, name), text);
  const image = join(root, 'image');
  await truncate(join(template, 'overlay.ext4'), DISK);
  const manifest = {
    ...{ key: KEY, ...SIZE, accelerator: 'tcg', stateSha256Hex: BUILD_ID, memoryBytes: MEMORY, overlayBytes: DISK },
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

const MANIFEST = {
  ...{ ...SIZE, templateKey: KEY, templateBuildId: BUILD_ID, accelerator: 'tcg', stateSha256Hex: BUILD_ID },
  ...{ stateBytes: STATE.length, overlayStoredBytes: 1, overlayBytes: DISK },
};

/** Like every one it is told to go on when it is loaded. */
const snapshot = async (): Promise<VmSnapshot> => {
  const directory = join(root, 'saved');
  await mkdir(directory, { recursive: true });
  for (const [name, text] of Object.entries({
    ...{ state: STATE, 'overlay.ext4': '' },
    'snapshot.json': JSON.stringify(MANIFEST),
  }))
    await writeFile(join(directory, name), text);
  await truncate(join(directory, 'overlay.ext4'), DISK);
  const made = {
    templateKey: KEY,
    templateBuildId: BUILD_ID,
    size: SIZE,
    backend: 'qemu',
    accelerator: 'tcg',
  } as const;
  return { directory, ...made, storedBytes: 1 };
};

/** What this process has started and has not ended, as the kernel tells (proc(5), stat). */
async function childrenNamed(program: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')));
  return stats.filter((stat) => new RegExp(`\\(${program}\\) [^Z] ${process.pid} `).test(stat));
}

describe('a QEMU that is not itself', () => {
  it('and breaks off while it loads a snapshot is ended, whether it ends by itself or not', async () => {
    const { restore } = await vmmWith({ 'query-status': "connection.sendall(b'no JSON\\n'); silent = True" });
    await expect(restore(await snapshot(), newIncarnationId())).rejects.toMatchObject({
      code: 'boot_failed',
      message: 'QEMU does not answer while it loads the snapshot',
    });
  });

  it.each([
    ['a FIFO in place of its disk', 'stop', "os.remove('overlay.ext4'); os.mkfifo('overlay.ext4')"],
    ['a link in place of its disk', 'stop', "os.remove('overlay.ext4'); os.symlink('/etc/passwd', 'overlay.ext4')"],
    ['a FIFO in place of its devices', 'xen-save-devices-state', "os.remove('devices'); os.mkfifo('devices')"],
    [
      'a link in place of its devices',
      'xen-save-devices-state',
      "os.remove('devices'); os.symlink('/etc/passwd', 'devices')",
    ],
    ['devices without an end', 'xen-save-devices-state', "os.truncate('devices', 2**25)"],
    ['the devices of another machine', 'xen-save-devices-state', "open('devices', 'w').write('another')"],
  ])('and has put %s is not saved, which is said at once', async (_, command, deed) => {
    const { restore } = await vmmWith({ [command]: deed });
    vm = await restore(await snapshot(), newIncarnationId());
    await expect(vm.snapshot(join(root, 'made'), 'continue')).rejects.toMatchObject({
      code: 'snapshot_failed',
      message: expect.stringMatching(/something else than a file|ELOOP|not those of the template/),
    });
    expect((await readdir(root)).filter((name) => name.startsWith('made') || name.startsWith('.'))).toEqual([]);
  });

  it('and refuses while its disk is still copied goes on first, and nobody writes to what is removed', async () => {
    const { restore } = await vmmWith({
      stop: `open('overlay.ext4', 'r+b').write(b'x' * ${DISK})`,
      'xen-save-devices-state': `connection.sendall(b'{"error": {"class": "GenericError", "desc": "no"}}\\n'); silent = True`,
      cont: "open('went-on', 'a').write('.')",
    });
    vm = await restore(await snapshot(), newIncarnationId());
    await expect(vm.snapshot(join(root, 'made'), 'continue')).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect(await childrenNamed('cp')).toEqual([]);
    expect((await readdir(root)).filter((name) => name.startsWith('made') || name.startsWith('.'))).toEqual([]);
    // When it was restored, and now.
    expect(await readFile(join(runDirectory, vm.incarnationId, 'went-on'), 'utf8')).toBe('..');
  });

  it('and does what it is asked is saved with the page that it wrote to', async () => {
    const { restore, findSnapshot } = await vmmWith({});
    vm = await restore(await snapshot(), newIncarnationId());
    const directory = join(root, 'made');
    const { storedBytes } = await vm.snapshot(directory, 'end');
    expect(storedBytes).toBeGreaterThan(4096);
    expect(storedBytes).toBeLessThan(4 * 4096);
    expect(await findSnapshot(directory)).toMatchObject({ storedBytes });
    await rm(directory, { recursive: true });
  });
});

it('A saved state leads to no template outside of their directory, whatever its manifest says', async () => {
  const { directory } = await snapshot();
  const { findSnapshot } = await vmmWith({});
  const found = async (templateKey: string): Promise<VmSnapshot | undefined> => {
    await writeFile(join(directory, 'snapshot.json'), JSON.stringify({ ...MANIFEST, templateKey }));
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
