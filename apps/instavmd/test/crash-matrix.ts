/** What every crash test does: an operation that is cut short at a step, and what must be true of the daemon that comes after. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Step } from '@instavm/core';
import { startTestDaemon } from '@instavm/testing';
import { expect } from 'vitest';
import { type Api, apiOf } from './api.ts';

const NOTE = 'kept through it all\n';

// biome-ignore lint/suspicious/noExplicitAny: see Answer in api.ts
type Json = any;

export class CrashScene {
  readonly api: Api;

  constructor(api: Api) {
    this.api = api;
  }

  async create(fields: object = {}): Promise<string> {
    const { status, body } = await this.api.json('POST', '/v2/sandboxes', { ttl_seconds: 3600, ...fields });
    expect([status, body.detail]).toEqual([201, undefined]);
    await this.api.execute(body.id, `printf '${NOTE.replace('\n', '\\n')}' > note; sync`);
    return body.id;
  }

  async note(id: string): Promise<string> {
    return (await this.api.execute(id, 'cat note')).body.stdout;
  }

  async sandboxes(): Promise<Json[]> {
    return (await this.api.request('GET', '/v2/sandboxes')).body.sandboxes;
  }

  async snapshots(): Promise<Json[]> {
    return (await this.api.request('GET', '/v2/snapshots')).body.snapshots;
  }

  post(path: string, body: object = {}): Promise<Json> {
    return this.api.json('POST', path, body);
  }

  /** Everything it has, deleted. */
  async clear(): Promise<void> {
    for (const { id } of await this.sandboxes()) await this.api.request('DELETE', `/v2/sandboxes/${id}`);
    for (const { id } of await this.snapshots()) await this.api.request('DELETE', `/v2/snapshots/${id}`);
  }
}

/** The operation that a step belongs to, and what is made before it. */
const OPERATIONS: Record<string, (scene: CrashScene) => Promise<() => Promise<unknown>>> = {
  create: async (scene) => () => scene.create(),
  suspend: async (scene) => {
    const id = await scene.create();
    return () => scene.post(`/v2/sandboxes/${id}/suspend`);
  },
  resume: async (scene) => {
    const id = await scene.create();
    await scene.post(`/v2/sandboxes/${id}/suspend`);
    return () => scene.post(`/v2/sandboxes/${id}/resume`);
  },
  snapshot: async (scene) => {
    const id = await scene.create();
    return () => scene.post(`/v2/sandboxes/${id}/snapshots`, { name: 'n' });
  },
  clone: async (scene) => {
    const id = await scene.create();
    return () => scene.post(`/v2/sandboxes/${id}/fork`);
  },
  end: async (scene) => {
    const id = await scene.create();
    return () => scene.api.request('DELETE', `/v2/sandboxes/${id}`);
  },
  delete: async (scene) => {
    const id = await scene.create();
    const { body } = await scene.post(`/v2/sandboxes/${id}/snapshots`, {});
    return () => scene.api.request('DELETE', `/v2/snapshots/${body.id}`);
  },
};

const RESTING = ['running', 'suspended', 'stopped', 'failed'];

/** What may be the last that the audit trail says about a sandbox in a state. */
const LAST_WORDS: Record<string, readonly string[]> = {
  running: ['started', 'resumed', 'woken', 'suspend_failed'],
  suspended: ['suspended', 'resume_failed'],
  stopped: ['ended', 'expired'],
  failed: ['failed'],
};

/** The trail says what the records say, however the daemon ended. */
async function requireTrail({ api }: CrashScene, sandboxes: Json[], snapshots: Json[]): Promise<void> {
  const eventsOf = async (group: string): Promise<Json[]> =>
    (await api.request('GET', `/v1/audit/events?event_group=${group}&limit=200`)).body.items;
  const told = await eventsOf('sandbox');
  for (const { id, state } of sandboxes) {
    const [last, ...earlier] = told.filter(({ resource_id }) => resource_id === id);
    expect([state, last.event_type]).toEqual([
      state,
      expect.toBeOneOf((LAST_WORDS[state] ?? []).map((word) => `sandbox.${word}`)),
    ]);
    const births = ['sandbox.created', 'sandbox.cloned', 'sandbox.restored'];
    expect(earlier.filter(({ event_type }) => births.includes(event_type))).toHaveLength(1);
  }
  expect(new Set(told.map(({ resource_id }) => resource_id)).size).toBe(sandboxes.length);
  const kept = await eventsOf('snapshot');
  for (const { id, status } of snapshots)
    expect(kept.filter(({ resource_id }) => resource_id === id).map((event) => event.status)).toEqual([
      status === 'ready' ? 'success' : 'failure',
    ]);
}

/**
 * Runs the operation of `step` in a daemon that dies there, starts another on the same directory, and checks that nothing is half-made,
 * that what was saved is intact, that the operation can be asked for again, and that nothing is left at the end.
 * @param survives whether microVMs outlive their daemon
 */
export async function crashAndRecover(vmm: 'fake' | 'qemu', step: Step, survives: boolean): Promise<void> {
  const dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-crash-test-'));
  const snapshotsIn = (): Promise<string[]> => readdir(join(dataDirectory, 'snapshots'));
  const first = await startTestDaemon({ vmm, dataDirectory, env: { INSTAVM_CRASH_AT: step } });
  const operation = step.slice(0, step.indexOf('.'));
  const prepare = OPERATIONS[operation];
  if (prepare === undefined) throw new Error(`no operation has the step ${step}`);
  const run = await prepare(new CrashScene(apiOf(first)));
  await expect(run()).rejects.toThrow('fetch failed');
  await first.crash();

  const second = await startTestDaemon({ vmm, dataDirectory });
  try {
    const scene = new CrashScene(apiOf(second));
    const [sandboxes, snapshots] = [await scene.sandboxes(), await scene.snapshots()];
    const found = sandboxes.map(({ state }) => state);
    expect(found.filter((state) => !RESTING.includes(state))).toEqual([]);
    expect(snapshots.filter(({ status }) => status === 'building')).toEqual([]);
    await requireTrail(scene, sandboxes, snapshots);
    const running = sandboxes.filter(({ state }) => state === 'running');
    // Made with the first microVM.
    expect(await readdir(join(dataDirectory, 'run')).catch(() => [])).toHaveLength(running.length);
    const saved = [
      ...found.filter((state) => state === 'suspended'),
      ...snapshots.filter(({ status }) => status === 'ready'),
    ];
    expect(await snapshotsIn()).toHaveLength(saved.length);

    // What is kept is whole: memory that still runs, memory on disk, snapshots. A sandbox that was being made holds nothing yet.
    const isKept = ['suspend', 'resume', 'snapshot', 'clone', 'delete'].includes(operation);
    if (isKept && survives) expect(['running', 'suspended']).toContain(found.at(-1));
    const written = operation === 'create' ? [] : sandboxes;
    for (const { id, state } of written)
      if (state === 'running' || state === 'suspended') expect(await scene.note(id)).toBe(NOTE);
    for (const { id, status } of snapshots)
      if (status === 'ready') {
        const { body: copy } = await scene.post('/v2/sandboxes', { snapshot_id: id });
        expect(await scene.note(copy.id)).toBe(NOTE);
      }

    await scene.clear();
    const again = await OPERATIONS[operation]?.(scene);
    await again?.();
    await scene.clear();
    expect(await snapshotsIn()).toEqual([]);
  } finally {
    await second.stop();
  }
  await rm(dataDirectory, { recursive: true, force: true });
}
