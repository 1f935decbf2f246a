/** What identifies a session, in memory and stored. Stored it holds no key and no value that the manifest calls ephemeral. */
import { Manifest, type SandboxSessionState } from '@openai/agents-core/sandbox';
import { deserializeManifest, sanitizeEnvironmentForPersistence, serializeManifestRecord } from './internals.ts';
import type { InstaVMSandboxClientOptions } from './options.ts';

/** What a sandbox is made again with. */
export type StoredOptions = Omit<InstaVMSandboxClientOptions, 'apiKey' | 'baseUrl'>;

export interface InstaVMSandboxSessionState extends SandboxSessionState {
  sandboxId: string;
  baseUrl: string;
  environment: Record<string, string>;
  options: StoredOptions;
  /** Taken when the session was closed: where one that resumes it begins when the sandbox is gone. */
  lastSnapshotId?: string;
}

export function serializeState(state: InstaVMSandboxSessionState): Record<string, unknown> {
  const { sandboxId, baseUrl, options, workspaceReady, lastSnapshotId } = state;
  return {
    ...(lastSnapshotId === undefined ? {} : { lastSnapshotId }),
    sandboxId,
    baseUrl,
    options,
    workspaceReady: workspaceReady ?? false,
    manifest: serializeManifestRecord(state.manifest),
    environment: sanitizeEnvironmentForPersistence(state),
  };
}

/** @throws Error when the record is not one of ours */
export async function deserializeState(record: Record<string, unknown>): Promise<InstaVMSandboxSessionState> {
  const { sandboxId, baseUrl } = record;
  if (typeof sandboxId !== 'string' || typeof baseUrl !== 'string') {
    throw new TypeError('this is not the state of an InstaVM sandbox session: sandboxId or baseUrl is missing');
  }
  const stored = record.manifest;
  const manifest =
    stored instanceof Manifest
      ? stored
      : deserializeManifest((stored ?? undefined) as Record<string, unknown> | undefined);
  const kept = isTextRecord(record.environment) ? record.environment : {};
  return {
    sandboxId,
    baseUrl,
    manifest,
    options: (typeof record.options === 'object' && record.options !== null ? record.options : {}) as StoredOptions,
    environment: { ...kept, ...(await manifest.resolveEnvironment()) },
    workspaceReady: record.workspaceReady === true,
    ...(typeof record.lastSnapshotId === 'string' ? { lastSnapshotId: record.lastSnapshotId } : {}),
  };
}

const isTextRecord = (value: unknown): value is Record<string, string> =>
  typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string');
