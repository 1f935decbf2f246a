/** Snapshots (contract §7, §8), and the same under our own words. */
import type { SandboxOwner, SnapshotRecord } from '@instavm/core';
import {
  InstaVMError,
  Snapshot,
  SnapshotDeleted,
  SnapshotSandboxRequest,
  SnapshotsQuery,
  SnapshotVmRequest,
  WaitQuery,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import type { Guest } from '../guest/guest.ts';
import { snapshotIdOf } from './create.ts';
import { ownerOf, ownerOfVm } from './views.ts';

const Vm = z.object({ vm: z.string() });
const One = z.object({ id: z.string() });
const LIST_LIMIT = 1000;

export const snapshotRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    /** @param wait false: answers as soon as it is recorded; the record then says how it went */
    const take = async (owner: SandboxOwner<Guest>, name: string | null | undefined, wait: boolean) => {
      const { record, taken } = await owner.snapshot(name ?? `snapshot of ${new Date().toISOString()}`);
      if (!wait) {
        taken.catch((error: unknown) => app.log.warn({ err: error, snapshotId: record.id }, 'taking a snapshot'));
        return snapshotView(record);
      }
      await taken;
      return snapshotView(await services.snapshots.get(record.accountId, record.id));
    };

    const ofVm = { params: Vm, querystring: WaitQuery, body: SnapshotVmRequest.nullish(), response: { 200: Snapshot } };
    app.post('/v1/vms/:vm/snapshot', { schema: ofVm }, async ({ account, params, query, body }) =>
      take(await ownerOfVm(services, account.id, params.vm), body?.name, query.wait ?? true),
    );
    const ofSandbox = { params: One, body: SnapshotSandboxRequest.nullish(), response: { 201: Snapshot } };
    app.post('/v2/sandboxes/:id/snapshots', { schema: ofSandbox }, async ({ account, params, body }, reply) =>
      reply.code(201).send(await take(await ownerOf(services, account.id, params.id), body?.name, true)),
    );

    const listed = { querystring: SnapshotsQuery, response: { 200: z.array(Snapshot) } };
    app.get('/v1/snapshots', { schema: listed }, async ({ account, query }) => {
      // All are their users'; the system's are those of templates, which this server does not offer.
      if (query.type === 'system') return [];
      return (await services.snapshots.list(account.id, LIST_LIMIT)).map(snapshotView);
    });
    app.get(
      '/v1/snapshots/:id',
      { schema: { params: One, response: { 200: Snapshot } } },
      async ({ account, params }) => snapshotView(await services.snapshots.get(account.id, snapshotIdOf(params.id))),
    );
    const deleted = { params: One, response: { 200: SnapshotDeleted } };
    app.delete('/v1/snapshots/:id', { schema: deleted }, async ({ account, params }) => {
      await services.snapshots.delete(account.id, snapshotIdOf(params.id));
      return { success: true, snapshot_id: params.id };
    });
    app.post('/v1/snapshots', { schema: { summary: 'Not yet: snapshots from OCI images' } }, async () => {
      throw new InstaVMError('not_available', 'snapshots from OCI images are not available on this server yet');
    });
  };

export const snapshotView = (record: SnapshotRecord) => ({
  id: record.id,
  snapshot_id: record.id,
  name: record.name,
  status: record.status,
  type: 'user' as const,
  is_public: false,
  error: record.error,
  source_vm_id: record.sourceIncarnationId,
  vcpu_count: record.settings.size.vcpus,
  memory_mb: record.settings.size.memoryMib,
  size_bytes: record.storedBytes,
  created_at: record.createdAt.toISOString(),
});
