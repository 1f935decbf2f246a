/** How long a list of sandboxes takes where an account has ten thousand records, by every route that has one. */
import { join } from 'node:path';
import {
  type AccountId,
  DEFAULT_LIFECYCLE,
  DEFAULT_SIZE,
  newIncarnationId,
  newSandboxId,
  type SandboxRecord,
} from '@instavm/core';
import { openDatabase, sandboxRecords } from '@instavm/store';
import { startTestDaemon } from '@instavm/testing';
import { median, type Row, timed } from './report.ts';

const RECORDS = 10_000;
const TEAMS = 100;
const ROUNDS = 25;
const ROUTES = ['/v1/vms', '/v1/vms/', '/v1/sessions/sandboxes?limit=1000', '/v2/sandboxes'];

export async function listRows(): Promise<Row[]> {
  const daemon = await startTestDaemon({ vmm: 'fake' });
  const ask = async (path: string, key: string, body?: object): Promise<string> => {
    const headers = { 'x-api-key': key, ...(body && { 'content-type': 'application/json' }) };
    const init = body && { method: 'POST', body: JSON.stringify(body) };
    const answer = await fetch(daemon.baseUrl + path, { ...init, headers });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.text();
  };
  const database = await openDatabase(join(daemon.dataDirectory, 'instavm.db'));
  try {
    const { id } = JSON.parse(await ask('/v1/users/me', daemon.apiKey)) as { id: AccountId };
    const records = sandboxRecords(database);
    for (let count = 0; count < RECORDS; count++) await records.insert(recordOf(id, count));
    const wanted = { scope: 'read', sandbox_metadata: { team: 'team-7' } };
    const { api_key: restricted } = JSON.parse(await ask('/v1/api-keys/', daemon.apiKey, wanted)) as {
      api_key: string;
    };
    const rows: Row[] = [];
    for (const route of ROUTES) {
      for (const [whose, key] of [['', daemon.apiKey] as const, [', 100 of them its own', restricted] as const]) {
        const ms: number[] = [];
        for (let round = 0; round < ROUNDS; round++) ms.push(await timed(() => ask(route, key)));
        const name = `list of ${RECORDS} sandboxes by ${route.split('?', 1)[0]}${whose}`;
        rows.push({ name, measured: `${median(ms).toFixed(1)} ms`, floor: '', ratio: '', target: '≤ 50 ms' });
      }
    }
    return rows;
  } finally {
    // They never were: a daemon that stops would look for them.
    await database.deleteFrom('incarnations').execute();
    await database.deleteFrom('sandboxes').execute();
    await database.destroy();
    await daemon.stop();
  }
}

function recordOf(accountId: AccountId, count: number): SandboxRecord {
  const createdAt = new Date(Date.UTC(2026, 0, 1) + count * 1_000);
  const metadata = { team: `team-${count % TEAMS}`, purpose: 'bench', run: count };
  return {
    ...{ id: newSandboxId(), accountId, state: count % 2 === 0 ? 'stopped' : 'running', stateReason: null },
    ...{ endCause: null, incarnationId: newIncarnationId(), epoch: 1, size: DEFAULT_SIZE, ttlSeconds: 300, createdAt },
    ...{ expiresAt: null, startedAt: createdAt, endedAt: null, metadata, env: {}, egress: null },
    ...{ lifecycle: DEFAULT_LIFECYCLE, savedIn: null, savedBytes: null, leaseLeftMs: null, snapshotId: null },
  };
}
