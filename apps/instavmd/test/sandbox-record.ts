/** A sandbox as a record, for tests that have nothing but a store. */
import { DEFAULT_LIFECYCLE, DEFAULT_SIZE, newIncarnationId, newSandboxId, type SandboxRecord } from '@instavm/core';

export const recordOf = (fields: Pick<SandboxRecord, 'accountId'> & Partial<SandboxRecord>): SandboxRecord => ({
  ...{ id: newSandboxId(), state: 'running', stateReason: null, endCause: null, epoch: 1 },
  ...{ incarnationId: newIncarnationId(), size: DEFAULT_SIZE, ttlSeconds: 300, metadata: {}, env: {}, egress: null },
  ...{ createdAt: new Date(), startedAt: new Date(), endedAt: null, expiresAt: new Date(Date.now() + 100_000) },
  ...{ lifecycle: DEFAULT_LIFECYCLE, savedIn: null, savedBytes: null, leaseLeftMs: null, snapshotId: null },
  ...fields,
});
