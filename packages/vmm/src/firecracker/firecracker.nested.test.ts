/** The Firecracker backend on the real Firecracker and jailer. Runs in the machine that scripts/nested makes, or as root on a KVM host. */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, readdir, readFile, readlink, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type MicroVm, newIncarnationId, type Template, type VmmCounts, type VmSnapshot } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeVmmContract } from '../contract/suite.ts';
import { TestGateway } from '../test/egress-gateway.ts';
import { expectNoNetwork, openFiles, procStatus } from '../test/proc-status.ts';
import { type Backend, makeBackend, PARENT_CGROUP, SIZE, shell, UIDS } from './test/backend.ts';

describeVmmContract('the Firecracker backend', async () => ({ ...(await makeBackend()), size: SIZE }));

describe('a jail', () => {
  let backend: Backend;
  let vm: MicroVm;

  beforeAll(async () => {
    backend = await makeBackend();
    vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
  });
  afterAll(async () => {
    await vm.kill();
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  const limit = async (name: string): Promise<string> =>
    (await readFile(join('/sys/fs/cgroup', PARENT_CGROUP, jailOf(vm), name), 'utf8')).trim();

  it('runs Firecracker as a user of its own without a capability, and under its seccomp filter', async () => {
    const found = await procStatus(vm.pid);
    const uid = Number(found.Uid?.split('\t')[0]);
    expect(uid).toBeGreaterThanOrEqual(UIDS.first);
    expect(uid).toBeLessThan(UIDS.first + UIDS.count);
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) expect(found[set]).toMatch(/^0+$/);
    expect(found).toMatchObject({ NoNewPrivs: '1', Seccomp: '2' });
    // Every thread has a filter, the vCPUs' too.
    for (const thread of await readdir(`/proc/${vm.pid}/task`))
      expect(await readFile(`/proc/${vm.pid}/task/${thread}/status`, 'utf8')).toMatch(/^Seccomp:\t2$/m);
  });

  it('has process ids and mounts of its own', async () => {
    for (const namespace of ['pid', 'mnt'])
      expect(await readlink(`/proc/${vm.pid}/ns/${namespace}`)).not.toBe(await readlink(`/proc/self/ns/${namespace}`));
    expect((await procStatus(vm.pid)).NSpid?.split('\t').at(-1)).toBe('1');
  });

  it('has a network of its own in which there is nothing but a loopback interface that is down', async () => {
    await expectNoNetwork(vm.pid);
  });

  it('has an empty environment and opens the files of its microVM alone', async () => {
    expect(await readFile(`/proc/${vm.pid}/environ`, 'utf8')).toBe('');
    // Its memory is the template's, whose link in the jail is gone.
    const ours = [
      'base.erofs',
      'firecracker.counts',
      'firecracker.log',
      'memory (deleted)',
      'overlay.ext4',
      'stderr.log',
    ];
    expect((await openFiles(vm.pid)).filter((name) => !ours.includes(name))).toEqual([]);
  });

  it('sees the files that it needs and no others', async () => {
    const seen = (await readdir(`/proc/${vm.pid}/root`)).sort();
    expect(seen).toEqual(
      [
        ...['api.sock', 'base.erofs', 'dev', 'firecracker', 'firecracker.counts', 'firecracker.log'],
        ...['firecracker.pid', 'overlay.ext4', 'run', 'vsock.sock'],
      ].sort(),
    );
  });

  it('is bounded in memory, processes and processor time', async () => {
    expect(Number(await limit('memory.max'))).toBe((SIZE.memoryMib + 128) * 1024 * 1024);
    expect(await limit('memory.swap.max')).toBe('0');
    expect(Number(await limit('pids.max'))).toBe(SIZE.vcpus + 8);
    expect(await limit('cpu.max')).toBe('150000 100000');
  });

  it('keeps what the names of its files and sockets mean from a Firecracker that is not itself any more', async () => {
    const attempts = [
      ...[
        "os.symlink('/etc/passwd', 'link')",
        "os.link('overlay.ext4', 'link')",
        "os.mkfifo('fifo')",
        "open('new', 'w')",
      ],
      ...["os.rename('api.sock', 'old')", "os.unlink('vsock.sock')", "os.unlink('firecracker.log')", "os.mkdir('dir')"],
      ...["open('run/new', 'w')", "open('dev/new', 'w')", "open('dev/net/new', 'w')", "os.rename('run', 'old')"],
      ...[
        "os.chmod('.', 0o777)",
        "os.chmod('run', 0o777)",
        "open('base.erofs', 'r+')",
        "open('firecracker.pid', 'r+')",
      ],
    ];
    const script = `
import os, sys
for attempt in sys.argv[1:]:
    try:
        eval(attempt)
        print('done', attempt)
    except PermissionError:
        print('refused')
# What it is there for.
open('overlay.ext4', 'r+')
`;
    const uid = Number((await procStatus(vm.pid)).Uid?.split('\t')[0]);
    const cwd = join(backend.runDirectory, 'firecracker', jailOf(vm), 'root');
    const { stdout } = await promisify(execFile)('python3', ['-c', script, ...attempts], { cwd, uid, gid: uid });
    expect(stdout.trim().split('\n')).toEqual(attempts.map(() => 'refused'));
    expect(await shell(vm, 'echo well')).toBe('well');
  });

  it('can write no file larger than its disk', async () => {
    const limits = await readFile(`/proc/${vm.pid}/limits`, 'utf8');
    const { size } = await stat(`/proc/${vm.pid}/root/overlay.ext4`);
    expect(limits).toMatch(new RegExp(`^Max file size +${size} +${size} `, 'm'));
  });

  it('gives a second microVM another user', async () => {
    const other = await backend.vmm.restore(await backend.template(), newIncarnationId());
    try {
      expect((await procStatus(other.pid)).Uid).not.toBe((await procStatus(vm.pid)).Uid);
    } finally {
      await other.kill();
    }
  });
});

describe('what a daemon that died leaves', () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await makeBackend();
  });
  afterAll(async () => {
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  it('is taken over with what runs in it; a jail that nobody takes over is ended and removed', async () => {
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    await shell(vm, 'echo kept > /dev/shm/kept');
    const next = await backend.again();
    const [survivor] = await next.adoptSurvivors();
    expect(survivor).toMatchObject({ incarnationId: vm.incarnationId, pid: vm.pid });
    expect(await next.reapLeftovers()).toBe(0);
    expect(await shell(survivor as MicroVm, 'cat /dev/shm/kept')).toBe('kept');
    expect(await (await backend.again()).reapLeftovers()).toBe(1);
    expect((await vm.exited).requested).toBe(false);
    expect((await (survivor as MicroVm).exited).requested).toBe(false);
  });

  it('a microVM whose Firecracker is killed says so, and is gone afterwards', async () => {
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    process.kill(vm.pid ?? 0, 'SIGKILL');
    const { requested, diagnostics } = await vm.exited;
    expect(requested).toBe(false);
    // What it said last.
    expect(diagnostics).toMatch(/\S/);
    await vm.kill();
    expect(await backend.leftovers()).toEqual([]);
  });

  it('a microVM whose Firecracker answers no call any more is ended by the snapshot that it does not take', async () => {
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    process.kill(vm.pid ?? 0, 'SIGSTOP');
    await expect(vm.snapshot(join(backend.scratch, 'never'), 'continue')).rejects.toMatchObject({
      code: 'snapshot_failed',
      message: expect.stringContaining('PATCH /vm: no answer within'),
    });
    expect((await vm.exited).requested).toBe(false);
    await vm.kill();
    expect([await backend.leftovers(), await readdir(backend.scratch)]).toEqual([[], []]);
  });

  it('a jail of which nothing but its cgroup is left is ended by the next daemon', async () => {
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    await rm(join(backend.runDirectory, 'firecracker'), { recursive: true });
    const next = await backend.again();
    expect(await next.adoptSurvivors()).toEqual([]);
    expect(await next.reapLeftovers()).toBe(1);
    expect((await vm.exited).requested).toBe(false);
    expect(await backend.leftovers()).toEqual([]);
  });

  it('a jail of another release, whose executable has another name, is taken over as well', async () => {
    const binaries = { ...backend.binaries, firecracker: join(backend.scratch, 'firecracker-v1.12.0-x86_64') };
    await copyFile(backend.binaries.firecracker, binaries.firecracker);
    const before = await backend.again(backend.version, binaries);
    const vm = await before.restore(await backend.template(), newIncarnationId());
    await shell(vm, 'echo kept > /dev/shm/kept');
    const [survivor] = await (await backend.again()).adoptSurvivors();
    expect(survivor).toMatchObject({ incarnationId: vm.incarnationId, pid: vm.pid });
    expect(await shell(survivor as MicroVm, 'cat /dev/shm/kept')).toBe('kept');
    await survivor?.kill();
    expect(await backend.leftovers()).toEqual([]);
  });

  it('a jail whose files are removed under it is ended like any other', async () => {
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    await rm(join(backend.runDirectory, 'firecracker', jailOf(vm)), { recursive: true });
    await vm.kill();
    expect((await vm.exited).requested).toBe(true);
    expect(await backend.leftovers()).toEqual([]);
  });
});

describe('a snapshot', () => {
  let backend: Backend;
  const at = (name: string): string => join(backend.scratch, name);
  beforeAll(async () => {
    backend = await makeBackend();
  });
  afterAll(async () => {
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });

  const inside = async <T>(source: Template | VmSnapshot, body: (vm: MicroVm) => Promise<T>): Promise<T> => {
    const vm = await backend.vmm.restore(source, newIncarnationId());
    try {
      return await body(vm);
    } finally {
      await vm.kill();
    }
  };
  const MIB = 1024 * 1024;
  it('keeps memory and processes, restores from where it was moved to, and is refused when it is damaged', async () => {
    const sum = await inside(await backend.template(), async (vm) => {
      const digest = await shell(vm, 'head -c 20M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data');
      await vm.snapshot(at('made'), 'end');
      return digest;
    });
    await rename(at('made'), at('moved'));
    const found = await backend.vmm.findSnapshot(at('moved'));
    // What differs from the template, which is some megabytes beside the data.
    expect(found?.storedBytes).toBeGreaterThan(20 * MIB);
    expect(found?.storedBytes).toBeLessThan(60 * MIB);
    if (found === undefined) return;
    expect(await inside(found, (vm) => shell(vm, 'sha256sum < /dev/shm/data'))).toBe(sum);
    const upgraded = (await backend.again('1.99.0')).restore(found, newIncarnationId());
    await expect(upgraded).rejects.toMatchObject({
      code: 'snapshot_incompatible',
      message: expect.stringMatching(
        /made by Firecracker (?!1\.99)\S+ on .*, and this daemon runs Firecracker 1\.99\.0 on /,
      ),
    });
    for (const file of ['state', 'memory.tar']) {
      const whole = await readFile(join(at('moved'), file));
      await rm(join(at('moved'), file));
      const damaged = Buffer.from(whole);
      damaged[whole.length >> 1] = (damaged[whole.length >> 1] ?? 0) ^ 1;
      await writeFile(join(at('moved'), file), damaged);
      expect(await backend.vmm.findSnapshot(at('moved'))).toBeUndefined();
      await rm(join(at('moved'), file));
      await writeFile(join(at('moved'), file), whole);
      expect(await backend.vmm.findSnapshot(at('moved'))).toBeDefined();
    }
  });

  it('of what was restored from one has the memory of both, and needs neither of the ones before', async () => {
    // Written, changed, and freed again between snapshots: pages of every kind.
    const write = (name: string) => `head -c 3M /dev/urandom > /dev/shm/${name}; sha256sum < /dev/shm/${name}`;
    const sums: string[] = [];
    await inside(await backend.template(), async (vm) => {
      sums.push(await shell(vm, `${write('first')}; head -c 3M /dev/urandom > /dev/shm/gone`));
      await vm.snapshot(at('one'), 'continue');
      sums.push(await shell(vm, `rm /dev/shm/gone; ${write('second')}`));
      await vm.snapshot(at('two'), 'continue');
    });
    await rm(at('one'), { recursive: true });
    const two = (await backend.vmm.findSnapshot(at('two'))) as VmSnapshot;
    const three = await inside(two, async (vm) => {
      await rm(at('two'), { recursive: true });
      sums.push(await shell(vm, write('third')));
      return vm.snapshot(at('three'), 'end');
    });
    const all = 'cd /dev/shm; for name in first second third; do sha256sum < $name; done; ls';
    expect((await inside(three, (vm) => shell(vm, all))).split('\n')).toEqual([...sums, 'first', 'second', 'third']);
  });

  it('after one that failed half-way is whole all the same, and no larger', async () => {
    const sum = await inside(await backend.template(), async (vm) => {
      const digest = await shell(vm, 'head -c 3M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data');
      // What such a one leaves: Firecracker counts anew, and nobody knows from what.
      await rm(join(backend.runDirectory, 'firecracker', jailOf(vm), 'memory.base'));
      expect((await vm.snapshot(at('whole'), 'end')).storedBytes).toBeLessThan(60 * MIB);
      return digest;
    });
    const whole = (await backend.vmm.findSnapshot(at('whole'))) as VmSnapshot;
    expect(await inside(whole, (vm) => shell(vm, 'sha256sum < /dev/shm/data'))).toBe(sum);
  });
});

describe('a microVM that was started over another building of its template', () => {
  it('is saved over the one that is there, without the account of what it has written to', async () => {
    const backend = await makeBackend();
    const template = await backend.template();
    const started = await backend.vmm.restore(template, newIncarnationId());
    const sum = await shell(started, 'head -c 3M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data');
    const jail = join(backend.runDirectory, 'firecracker', jailOf(started));
    const record = JSON.parse(await readFile(join(jail, 'vmm.json'), 'utf8'));
    expect(record).toMatchObject({ templateKey: template.key, templateBuildId: template.buildId });
    await writeFile(join(jail, 'vmm.json'), JSON.stringify({ ...record, templateBuildId: 'another' }));
    await writeFile(join(jail, 'memory.base'), 'what differs from another building');
    const [vm] = await (await backend.again()).adoptSurvivors();
    const snapshot = await vm?.snapshot(join(backend.scratch, 'saved'), 'end');
    expect(snapshot).toMatchObject({ templateBuildId: template.buildId });
    await started.kill();
    const again = await backend.vmm.restore(snapshot as VmSnapshot, newIncarnationId());
    expect(await shell(again, 'sha256sum < /dev/shm/data').finally(() => again.kill())).toBe(sum);
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });
});

describe('a guest that does its worst', () => {
  it.each([
    ['processor time', 'for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; sleep 1; echo started'],
    ['memory', '(head -c 2G /dev/zero | tail) >/dev/null 2>&1 & sleep 3; echo started'],
    [
      'processes', // Waits without a program of its own, which the bomb leaves no room for.
      'exec 9<> <(:); (bomb() { bomb | bomb & }; bomb) >/dev/null 2>&1 & read -rt 2 -u 9; echo started',
    ],
    [
      'connections to the host',
      `timeout 6 python3 -c '
import socket, threading
def flood(port):
    while True:
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try: s.connect((2, port)); s.send(b"x" * 65536)
        except OSError: pass
        s.close()
for port in range(10, 14): threading.Thread(target=flood, args=(port,)).start()' >/dev/null 2>&1 & sleep 2; echo started`,
    ],
    ['its disk', '(dd if=/dev/zero of=/root/full bs=1M) >/dev/null 2>&1 & sleep 3; echo started'],
  ])('with %s hurts nobody else, and ends like any other', async (_, worst) => {
    const backend = await makeBackend();
    const [noisy, quiet] = [
      await backend.vmm.restore(await backend.template(), newIncarnationId()),
      await backend.vmm.restore(await backend.template(), newIncarnationId()),
    ];
    try {
      expect(await shell(noisy, worst)).toContain('started');
      expect(await shell(quiet, 'echo here > /root/file; cat /root/file')).toBe('here');
      // Its own limits do not end it either: the jail has room for all of the guest's memory.
      expect(await readlink(`/proc/${noisy.pid}/ns/pid`)).not.toBe('');
    } finally {
      await Promise.all([noisy.kill(), quiet.kill()]);
    }
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });
});

describe('a guest that writes as fast as it can', () => {
  it('is held to the rate of its disk, which is counted, while another one answers', async () => {
    const mib = 1024 * 1024;
    const backend = await makeBackend({ bytesPerSecond: 8 * mib, operationsPerSecond: 10_000 });
    const [busy, quiet] = [
      await backend.vmm.restore(await backend.template(), newIncarnationId()),
      await backend.vmm.restore(await backend.template(), newIncarnationId()),
    ];
    const written = 32;
    const dd = `dd if=/dev/zero of=/root/file bs=${mib} count=${written} oflag=direct status=none`;
    try {
      const took = shell(busy, `s=$(date +%s%N); ${dd}; echo $((($(date +%s%N) - s) / 1000000))`);
      expect(await shell(quiet, 'echo here > /root/file; sync; cat /root/file')).toBe('here');
      // What one second allows is there from the start; and the guest's clock is that of an emulated machine.
      expect(Number(await took)).toBeGreaterThan((written / 8 - 1) * 1000 * 0.6);
    } finally {
      await Promise.all([busy.kill(), quiet.kill()]);
    }
    const sum = (of: keyof VmmCounts): number => backend.counts.reduce((total, counts) => total + counts[of], 0);
    expect(sum('diskThrottled')).toBeGreaterThan(0);
    expect(sum('diskWrittenBytes')).toBeGreaterThanOrEqual(written * mib);
    for (const of of ['diskReadBytes', 'channelReceivedBytes', 'channelSentBytes'] as const)
      expect(sum(of)).toBeGreaterThan(0);
    for (const of of ['seccompFaults', 'vcpuFailures'] as const) expect(sum(of)).toBe(0);
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });
});

describe('the egress channel', () => {
  it('carries what programs connect to, and is opened again after a snapshot', async () => {
    const backend = await makeBackend();
    const vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
    const digest = `head -c 1000000 /dev/zero | timeout 200 python3 -c '
import socket, sys
with socket.create_connection(("files.example", 9)) as peer:
    peer.sendall(sys.stdin.buffer.read())
    peer.shutdown(socket.SHUT_WR)
    print(peer.recv(64).decode())'`;
    const expected = createHash('sha256').update(Buffer.alloc(1_000_000)).digest('hex');
    try {
      await new TestGateway().serve(await vm.connect('egress'));
      expect(await shell(vm, digest)).toBe(expected);
      await vm.snapshot(join(backend.scratch, 'made'), 'continue');
      const gateway = new TestGateway();
      await gateway.serve(await vm.connect('egress'));
      expect(await shell(vm, digest)).toBe(expected);
      expect(gateway.asked).toContain('files.example:9');
    } finally {
      await vm.kill();
    }
    expect(await backend.leftovers()).toEqual([]);
    await backend.close();
  });
});

const jailOf = (vm: MicroVm): string => vm.incarnationId.replace('_', '-');
