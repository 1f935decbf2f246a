/** Sandboxes made and commands run through the SDK, interleaved with the same asked of the guest directly. */
import type { InstaVM } from 'instavm';
import type { Clone } from './floor.ts';
import { median, type Row, ratio, timed } from './report.ts';
import type { Counts } from './subject.ts';

/** The floor: the same backend without daemon, HTTP and SDK. */
export type Direct = {
  restoreToFirstExec(): Promise<number>;
  clone(): Promise<Pick<Clone, 'run' | 'end'>>;
};

/** One restore of each after the other, so that both meet the same host. */
export async function createToFirstExec(
  client: InstaVM,
  floor: Direct,
  rounds: number,
): Promise<{ readonly ms: number; readonly floorMs: number }> {
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    theirs.push(await floor.restoreToFirstExec());
    const started = performance.now();
    const sandbox = await client.sandboxes.create();
    await sandbox.run('true');
    ours.push(performance.now() - started);
    await sandbox.delete();
  }
  return { ms: median(ours), floorMs: median(theirs) };
}

export async function execRoundTrip(client: InstaVM, floor: Direct, rounds: number): Promise<Row> {
  const sandbox = await client.sandboxes.create();
  const direct = await floor.clone();
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    theirs.push(await timed(() => direct.run('true')));
    ours.push(await timed(() => sandbox.run('true')));
  }
  await direct.end();
  await sandbox.delete();
  return ratio('exec round trip of true', median(ours), median(theirs), 1.5);
}

export async function manyExecs(client: InstaVM, counts: Counts): Promise<Row[]> {
  const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
  const ask = async (n: number): Promise<boolean> => (await sandbox.run(['echo', String(n)])).stdoutText === `${n}\n`;
  let sequential = 0;
  for (let n = 0; n < counts.sequential; n++) if (await ask(n)) sequential++;
  const parallel = (await Promise.all(Array.from({ length: counts.parallel }, (_, n) => ask(n)))).filter(
    Boolean,
  ).length;
  await sandbox.delete();
  const row = (name: string, right: number, of: number): Row => ({
    name,
    measured: `${right} of ${of} right`,
    floor: '',
    ratio: '',
    target: 'all',
  });
  return [
    row(`${counts.sequential} sequential execs`, sequential, counts.sequential),
    row(`${counts.parallel} parallel execs`, parallel, counts.parallel),
  ];
}
