/** The part of the benchmark that needs Firecracker, in the machine that stands for a KVM host. Its times say nothing about speed, its ratios do. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runNested } from '../../scripts/nested/run.ts';
import { type Row, table } from '../report.ts';

const LIMIT_MS = 15 * 60_000;
const JOB = `
exec node --conditions=instavm-source bench/nested/restore.ts /run/result/row.json
`;

export async function runNestedBench({ json }: { readonly json: boolean }): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-nested-bench-'));
  const say = (text: string): void => void process.stderr.write(text);
  const onProgress = (message: string): void => say(`… ${message}\n`);
  const status = await runNested({ script: JOB, limitMs: LIMIT_MS, directory, onOutput: say, onProgress });
  if (status !== 0) throw new Error(`the benchmark ended with ${status}; the machine's logs are in ${directory}`);
  const rows = [JSON.parse(await readFile(join(directory, 'result/row.json'), 'utf8')) as Row];
  await rm(directory, { recursive: true });
  console.log(json ? JSON.stringify({ rows }, null, 2) : table(rows));
}
