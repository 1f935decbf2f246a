/**
 * Restore → first answer of the Firecracker backend against a bare script, in pairs. Runs where Firecracker runs: as root on a KVM host, or in
 * the machine of scripts/nested. Writes a row of the benchmark as JSON to the path that is its argument.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentClient } from '@instavm/agent-client';
import { DEFAULT_SIZE, newIncarnationId, type Vmm } from '@instavm/core';
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { createFirecrackerVmm, firecrackerVersion } from '@instavm/vmm/firecracker';
import { median, type Row } from '../report.ts';
import { Bare } from './bare.ts';

const PAIRS = 12;
const ANSWER_MS = 60_000;
const TARGET = 1.5;

const [path = ''] = process.argv.slice(2);
const { FIRECRACKER_BIN: firecracker = '', JAILER_BIN: jailer = '' } = process.env;
if (path === '' || firecracker === '' || jailer === '')
  throw new Error('usage: FIRECRACKER_BIN=… JAILER_BIN=… bench/nested/restore.ts ROW.json');

const cacheDirectory = defaultCacheDirectory(process.env);
const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
const scratch = await mkdtemp(join(tmpdir(), 'instavm-bench-'));
const binaries = { firecracker, jailer };
const vmm = createFirecrackerVmm({
  templatesDirectory: join(cacheDirectory, 'templates'),
  runDirectory: join(scratch, 'ours'),
  binaries,
  version: await firecrackerVersion(binaries),
  uids: { first: 300_000, count: 8 },
  parentCgroup: 'instavm-bench',
  disk: { bytesPerSecond: Infinity, operationsPerSecond: Infinity },
});
const template =
  (await vmm.findTemplate(vmm.templateKey(images, DEFAULT_SIZE))) ??
  (await vmm.buildTemplate(images, DEFAULT_SIZE, () => {}));
const bare = new Bare(binaries, template, join(scratch, 'bare'));

const [ours, theirs]: [number[], number[]] = [[], []];
// The first of each warms the host's caches.
for (let pair = -1; pair < PAIRS; pair++) {
  const floor = await bare.restoreToFirstAnswer();
  const own = await restoreToFirstAnswer(vmm);
  if (pair < 0) continue;
  ours.push(own);
  theirs.push(floor);
  console.log(`pair ${pair + 1}: ${own.toFixed(0)} ms, bare ${floor.toFixed(0)} ms`);
}
await bare.close();
await rm(scratch, { recursive: true });
const row: Row = {
  name: 'restore → first answer under Firecracker',
  measured: `${median(ours).toFixed(0)} ms`,
  floor: `${median(theirs).toFixed(0)} ms by a bare script`,
  ratio: (median(ours) / median(theirs)).toFixed(2),
  target: `≤ ${TARGET} × floor`,
};
await writeFile(path, JSON.stringify(row));

/** @returns ms */
async function restoreToFirstAnswer(by: Vmm): Promise<number> {
  const started = performance.now();
  const vm = await by.restore(template, newIncarnationId());
  const agent = await AgentClient.open(await vm.connect('control'), ANSWER_MS);
  await agent.lifecycle.ping({}, { timeoutMs: ANSWER_MS });
  const ms = performance.now() - started;
  agent.close();
  await vm.kill();
  return ms;
}
