/** What is told of a sandbox with --json, by every command that tells of one: `SandboxInfo` of the client library. */
export const SANDBOX_JSON =
  '{ id, state, stateReason, incarnationId, createdAt, expiresAt, memoryMb, vcpuCount, metadata }';

export const SNAPSHOT_JSON = '{ id, name, status, error, memoryMb, vcpuCount, sizeBytes, createdAt }';
