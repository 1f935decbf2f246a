/**
 * Sandboxes coming, sleeping and going: creates one after another, staggered and at once, from the warm pool and without; suspend and
 * resume; what many idle ones cost. The floor of a suspend is writing as many bytes to the same disk.
 */
import { mkdtemp, open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { median, percentile, pssMib, type Row, rssMib, timed } from './report.ts';
import type { Subject } from './subject.ts';

/** Longer than the pool waits for quiet, plus a restore and its rehearsal. */
const POOL_REFILL_MS = 4_000;
const TOUCHED = '100M';
const STAGGER_MS = 250;
/** USER_HZ of every Linux that Node runs on. */
const MS_PER_TICK = 10;

/** @param createMs median of create → first exec without pool, by the same run */
export async function lifecycleRows(
  client: InstaVM,
  daemon: TestDaemon,
  createMs: number,
  subject: Subject,
): Promise<Row[]> {
  return [
    ...(await idleFleet(client, daemon, subject)),
    await warmPool(subject),
    ...(await creates(client, daemon, subject)),
    ...(await suspension(client, daemon, createMs, subject)),
  ];
}

async function warmPool(subject: Subject): Promise<Row> {
  const daemon = await subject.start({ INSTAVM_WARM_POOL: '1' });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  const [firsts, execs]: [number[], number[]] = [[], []];
  try {
    for (let round = 0; round < subject.counts.pool; round++) {
      await sleep(POOL_REFILL_MS);
      const { sandbox, ms } = await create(client);
      firsts.push(ms);
      execs.push(await timed(() => sandbox.run('true')));
      await sandbox.delete();
    }
  } finally {
    client.close();
    await daemon.stop();
  }
  return against('create → first exec, from the warm pool', median(firsts), median(execs), subject.poolTarget);
}

async function suspension(client: InstaVM, daemon: TestDaemon, createMs: number, subject: Subject): Promise<Row[]> {
  const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
  await sandbox.run(`head -c ${TOUCHED} /dev/urandom > /dev/shm/touched`);
  const [suspends, resumes, writes, sizes]: [number[], number[], number[], number[]] = [[], [], [], []];
  let held = 0;
  for (let round = 0; round < subject.counts.suspensions; round++) {
    suspends.push(await timed(() => sandbox.suspend()));
    held = Math.max(held, (await subject.vmmsOf(daemon)).length);
    const bytes = await storedBytes(join(daemon.dataDirectory, 'snapshots'));
    sizes.push(bytes);
    writes.push(await timed(() => writeToDisk(daemon.dataDirectory, bytes)));
    resumes.push(await timed(() => sandbox.run('true')));
  }
  await sandbox.delete();
  return [
    against('suspend, 100 MB touched', median(suspends), median(writes), '≤ 3 × writing them'),
    plain('stored for it', `${Math.round(median(sizes) / 1e6)} MB`, ''),
    plain('VMM processes of a suspended sandbox', String(held), '0'),
    against('resume → first exec, 100 MB touched', median(resumes), createMs, '≤ 1.5 × create'),
  ];
}

async function creates(client: InstaVM, daemon: TestDaemon, subject: Subject): Promise<Row[]> {
  const { burst: atOnce } = subject.counts;
  const [sequential, cpu]: [number[], number[]] = [[], []];
  for (let round = 0; round < atOnce; round++) {
    const before = await cpuMs(daemon.pid);
    const { sandbox, ms } = await create(client);
    sequential.push(ms);
    const vmms = await Promise.all((await subject.vmmsOf(daemon)).map(cpuMs));
    cpu.push((await cpuMs(daemon.pid)) - before + vmms.reduce((sum, each) => sum + each, 0));
    await sandbox.delete();
  }
  const many = async (delayMs: number): Promise<number[]> => {
    const made = await Promise.all(
      Array.from({ length: atOnce }, async (_, index) => {
        await sleep(index * delayMs);
        return create(client);
      }),
    );
    await Promise.all(made.map(({ sandbox }) => sandbox.delete()));
    return made.map(({ ms }) => ms);
  };
  const staggered = await many(STAGGER_MS);
  const burst = await many(0);
  const cores = cpus().length;
  const limit = (atOnce * median(cpu) * 1.3) / cores;
  const row = (name: string, times: readonly number[]): Row =>
    plain(name, `median ${median(times).toFixed(0)}, p95 ${percentile(times, 95).toFixed(0)} ms`, 'all succeed');
  return [
    plain('CPU time of a create → first exec', `${median(cpu).toFixed(0)} ms`, ''),
    row(`${atOnce} creates, one after another`, sequential),
    row(`${atOnce} creates, one every ${STAGGER_MS} ms`, staggered),
    {
      ...row(`${atOnce} creates at once`, burst),
      floor: `${limit.toFixed(0)} ms`,
      ratio: (percentile(burst, 95) / limit).toFixed(2),
      target: `p95 ≤ ${atOnce} × CPU ÷ ${cores} × 1.3`,
    },
  ];
}

async function idleFleet(client: InstaVM, daemon: TestDaemon, subject: Subject): Promise<Row[]> {
  const { fleet, few } = subject.counts;
  const before = await rssMib(daemon.pid);
  const sandboxes: Sandbox[] = [];
  let withFew = 0;
  for (let n = 1; n <= fleet; n++) {
    sandboxes.push(await client.sandboxes.create({ ttlSeconds: 3600 }));
    if (n === few) withFew = await rssMib(daemon.pid);
  }
  let right = 0;
  for (const sandbox of sandboxes) if ((await sandbox.run('true')).exitCode === 0) right++;
  const memory = await Promise.all((await subject.vmmsOf(daemon)).map(pssMib));
  const grown = (await rssMib(daemon.pid)) - before;
  await Promise.all(sandboxes.map((sandbox) => sandbox.delete()));
  return [
    plain(`${fleet} idle sandboxes of 512 MB, each asked once`, `${right} of ${fleet} answered`, 'all'),
    plain('PSS of an idle sandbox, median', `${median(memory).toFixed(0)} MiB`, ''),
    plain(`daemon RSS with ${few} sandboxes`, `${withFew.toFixed(0)} MiB`, '≤ 150 MiB'),
    plain('daemon memory per sandbox', `${(grown / fleet).toFixed(2)} MiB`, '≤ 1.5 MB'),
  ];
}

async function create(client: InstaVM): Promise<{ sandbox: Sandbox; ms: number }> {
  const started = performance.now();
  const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
  await sandbox.run('true');
  return { sandbox, ms: performance.now() - started };
}

async function cpuMs(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** What the files occupy, holes left out. */
async function storedBytes(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const sizes = entries.map(async (entry) =>
    entry.isFile() ? (await stat(join(entry.parentPath, entry.name))).blocks * 512 : 0,
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

/** With fsync, in a directory of its own on the same filesystem. */
async function writeToDisk(beside: string, bytes: number): Promise<void> {
  const directory = await mkdtemp(join(beside, 'write-'));
  const file = await open(join(directory, 'bytes'), 'w');
  const chunk = Buffer.alloc(1024 * 1024, 0xa5);
  for (let written = 0; written < bytes; written += chunk.length) await file.write(chunk);
  await file.sync();
  await file.close();
  await rm(directory, { recursive: true });
}

const plain = (name: string, measured: string, target: string): Row => ({
  name,
  measured,
  floor: '',
  ratio: '',
  target,
});

const against = (name: string, ours: number, floor: number, target: string): Row => ({
  name,
  measured: `${ours.toFixed(0)} ms`,
  floor: `${floor.toFixed(0)} ms`,
  ratio: (ours / floor).toFixed(2),
  target,
});
