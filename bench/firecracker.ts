/**
 * What an operator runs on a KVM host: the figures that SPECIFICATION.md promises for Firecracker under its jailer. Three floors: one exec, the same
 * restore without the daemon, and Firecracker alone. Figures whose floor is a port of QEMU's are left to the benchmark of QEMU.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { DEFAULT_SIZE, newIncarnationId, type Template, type Vmm } from '@instavm/core';
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { type FirecrackerVerdict, judgeFirecracker } from '@instavm/vmm/choice';
import { createFirecrackerVmm, UNLIMITED } from '@instavm/vmm/firecracker';
import { InstaVM } from 'instavm';
import { bareLoadMs } from './bare-firecracker.ts';
import { createToFirstExec, type Direct, execRoundTrip, manyExecs } from './exec.ts';
import { Clone } from './floor.ts';
import { lifecycleRows } from './lifecycle.ts';
import { median, pssMib, type Row, table, timed } from './report.ts';
import { FULL, firecrackerSubject, QUICK, type Subject } from './subject.ts';

/** Beside the default range of a daemon. */
const UIDS = { first: 1_900_020_000, count: 100 };
const PARENT_CGROUP = 'instavm-bench';
const ATTACH_MS = 60_000;

export type FirecrackerBench = {
  readonly json: boolean;
  /** Small counts, to see that it runs to its end. */
  readonly quick: boolean;
};

/** @throws Error where KVM runs no guests, or Firecracker cannot be used */
export async function runFirecrackerBench({ json, quick }: FirecrackerBench): Promise<void> {
  const progress = (what: string): void => console.error(`… ${what}`);
  const cacheDirectory = defaultCacheDirectory(process.env);
  const { binaries, version } = await usable(cacheDirectory, progress);
  const directory = await mkdtemp(join(cacheDirectory, 'bench-'));
  try {
    const subject = firecrackerSubject({ counts: quick ? QUICK : FULL, binaries, directory });
    const rows = await measured(subject, { binaries, version, directory, cacheDirectory }, progress);
    const cpuinfo = await readFile('/proc/cpuinfo', 'utf8');
    const hasHugeStacks = (await readFile('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8')).includes('[always]');
    const host = {
      ...{ cpus: cpus().length, cpu: cpus()[0]?.model ?? '', memoryGib: Math.round(totalmem() / 2 ** 30) },
      ...{ accelerator: 'kvm', firecracker: version, isVirtualMachine: /^flags\s*:.*\bhypervisor\b/m.test(cpuinfo) },
    };
    if (json) return console.log(JSON.stringify({ host, rows }, null, 2));
    const notes = [
      `Host: ${host.cpus} × ${host.cpu}, ${host.memoryGib} GiB, Firecracker ${version} under its jailer.`,
      ...(host.isVirtualMachine ? ['It is a virtual machine itself: these times say nothing about a KVM host.'] : []),
      ...(hasHugeStacks
        ? ['Transparent huge pages are always on: the stack of a thread of a VMM, a few pages, may take 2 MiB.']
        : []),
      ...(quick ? ['Counts are small: medians of these say little.'] : []),
    ];
    console.log(`${table(rows)}\n\n${notes.join('\n')}\n\n${JSON.stringify({ host, rows })}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function usable(
  cacheDirectory: string,
  progress: (what: string) => void,
): Promise<Extract<FirecrackerVerdict, { usable: true }>> {
  const { INSTAVM_FIRECRACKER_BIN: firecracker = 'firecracker', INSTAVM_JAILER_BIN: jailer = 'jailer' } = process.env;
  const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
  const verdict = await judgeFirecracker(
    {
      ...{ images, binaries: { firecracker, jailer }, cacheDirectory },
      ...{ dataDirectory: cacheDirectory, probe: true },
    },
    progress,
  );
  if (verdict.usable) return verdict;
  throw new Error(`Firecracker cannot be measured here: ${verdict.why}\n${verdict.remedy}`);
}

type Site = {
  readonly binaries: { readonly firecracker: string; readonly jailer: string };
  readonly version: string;
  readonly directory: string;
  readonly cacheDirectory: string;
};

async function measured(subject: Subject, site: Site, progress: (what: string) => void): Promise<Row[]> {
  progress('starting a daemon; the first start makes a template');
  const daemon = await subject.start();
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  const { counts } = subject;
  try {
    const [direct, template] = await directly(site);
    progress('create to first exec');
    const created = await createToFirstExec(client, direct, counts.creates);
    const rows: Row[] = [
      {
        name: 'create → first exec, without pool',
        measured: `${created.ms.toFixed(1)} ms`,
        floor: `${created.floorMs.toFixed(1)} ms`,
        ratio: (created.ms / created.floorMs).toFixed(2),
        target: '≤ 50 ms',
      },
    ];
    progress('Firecracker alone');
    rows.push(
      await overFirecracker(client, counts.creates, () =>
        bareLoadMs(site.binaries.firecracker, template.directory, site.directory),
      ),
    );
    progress('memory of a VMM');
    rows.push(await vmmMemory(client, () => subject.vmmsOf(daemon)));
    progress('exec round trip');
    rows.push(await execRoundTrip(client, direct, counts.execs));
    progress('creates, suspensions, many idle sandboxes');
    rows.push(...(await lifecycleRows(client, daemon, created.ms, subject)));
    progress('many execs in one sandbox');
    rows.push(...(await manyExecs(client, counts)));
    return rows;
  } finally {
    client.close();
    await daemon.stop();
  }
}

/** The backend without the daemon: jailer, restore and guest agent. */
async function directly(site: Site): Promise<[Direct, Template]> {
  const images = await locateGuestImages({ cacheDirectory: site.cacheDirectory, agentPath: GUEST_AGENT_PATH });
  const vmm: Vmm = createFirecrackerVmm({
    templatesDirectory: join(site.cacheDirectory, 'templates'),
    runDirectory: join(site.directory, 'jails'),
    binaries: site.binaries,
    version: site.version,
    uids: UIDS,
    parentCgroup: PARENT_CGROUP,
    disk: UNLIMITED,
  });
  const template = await vmm.findTemplate(vmm.templateKey(images, DEFAULT_SIZE));
  if (template === undefined) throw new Error('the template that the daemon made is not found');
  const clone = async (): Promise<Clone> => {
    const vm = await vmm.restore(template, newIncarnationId());
    return new Clone(vm, await AgentClient.open(await vm.connect('control'), ATTACH_MS), site.directory);
  };
  const restoreToFirstExec = async (): Promise<number> => {
    const startedAt = performance.now();
    const guest = await clone();
    await guest.run('true');
    const ms = performance.now() - startedAt;
    await guest.end();
    return ms;
  };
  return [{ clone, restoreToFirstExec }, template];
}

/** What jail, daemon and HTTP add until a sandbox is there. */
async function overFirecracker(client: InstaVM, rounds: number, bare: () => Promise<number>): Promise<Row> {
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    theirs.push(await bare());
    let made: { delete(): Promise<unknown> } | undefined;
    ours.push(
      await timed(async () => {
        made = await client.sandboxes.create();
      }),
    );
    await made?.delete();
  }
  const [create, own] = [median(ours), median(theirs)];
  return {
    name: 'create, over Firecracker’s own start, load and resume',
    measured: `${create.toFixed(1)} ms`,
    floor: `${own.toFixed(1)} ms`,
    ratio: `+${(create - own).toFixed(1)} ms`,
    target: '≤ +10 ms',
  };
}

async function vmmMemory(client: InstaVM, vmms: () => Promise<number[]>): Promise<Row> {
  const sandbox = await client.sandboxes.create();
  await sandbox.run('true');
  const pids = await vmms();
  const own = await Promise.all(pids.map(ownMemoryMib));
  await sandbox.delete();
  const measured = own.length === 0 ? 'no VMM found' : `${median(own).toFixed(1)} MiB`;
  return { name: 'memory of a VMM beside its guest’s (PSS)', measured, floor: '', ratio: '', target: '≤ 5 MiB' };
}

const ownMemoryMib = async (pid: number): Promise<number> => (await pssMib(pid)) - (await guestMemoryMib(pid));

/** Of the mapping of the memory file, with the pages that have become the guest's own. */
async function guestMemoryMib(pid: number): Promise<number> {
  let kib = 0;
  let isGuests = false;
  for (const line of (await readFile(`/proc/${pid}/smaps`, 'utf8')).split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isGuests = /\/memory( \(deleted\))?$/.test(line);
    else if (isGuests) kib += Number(/^Pss:\s+(\d+)/.exec(line)?.[1] ?? 0);
  }
  return kib / 1024;
}
