/** A sandbox of a real microVM comes back from a backup with what it had in memory. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inheritedEnvironment, startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ListedTemplate } from '../src/templates/needs.ts';
import { type Api, apiOf } from './api.ts';

const INSTAVMD = fileURLToPath(new URL('../bin/instavmd', import.meta.url));

const python = async (api: Api, id: string, command: string): Promise<string> =>
  (await api.json('POST', '/execute', { session_id: id, command, language: 'python' })).body.stdout;

let directory: string;
let first: TestDaemon;
// The first start of a new agent makes a template.
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-backup-vm-test-'));
  first = await startTestDaemon({ vmm: 'qemu' });
});
afterAll(async () => {
  await first.stop();
  await rm(directory, { recursive: true, force: true });
});

it('a suspended sandbox resumes from a backup, memory and all', async () => {
  const instavmd = (...args: readonly string[]): string => {
    const env = { ...inheritedEnvironment(), INSTAVM_DATA_DIR: first.dataDirectory };
    const { status, stdout, stderr } = spawnSync(INSTAVMD, args, { env, encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    return stdout;
  };
  /** By data directory, as whoever prunes templates sees them. */
  const needs = (): Map<string, { daemonRuns: boolean; savedStates: string[] }> => {
    const { templates } = JSON.parse(instavmd('templates', '--json')) as { templates: ListedTemplate[] };
    return new Map(templates.flatMap(({ neededBy }) => neededBy.map((need) => [need.dataDirectory, need])));
  };
  const api = apiOf(first);
  const { id } = (await api.json('POST', '/v2/sandboxes', { ttl_seconds: 3600 })).body;
  await python(api, id, 'kept = 41');
  await api.json('POST', `/v2/sandboxes/${id}/suspend`, {});
  const backup = join(directory, 'backup');
  // The templates are on this host; carrying them is tested with small ones.
  instavmd('backup', backup, '--without-templates');
  const described = JSON.parse(await readFile(join(backup, 'backup.json'), 'utf8'));
  expect(described).toMatchObject({ format: 1, savedStates: 1 });
  expect(needs().get(first.dataDirectory)).toMatchObject({ daemonRuns: true, savedStates: [expect.any(String)] });
  await first.stop();

  const dataDirectory = join(directory, 'restored');
  instavmd('restore', backup, '--data-dir', dataDirectory);
  expect(needs().get(dataDirectory)).toMatchObject({ daemonRuns: false, savedStates: [expect.any(String)] });
  const second = await startTestDaemon({ vmm: 'qemu', dataDirectory });
  expect(await python(apiOf(second), id, 'print(kept + 1)')).toBe('42\n');
  await second.stop();
});
