/** The SDK's exported but undocumented helpers, in one place: they are what its own providers use, and may change with it. */
export {
  deserializeManifest,
  formatExecResponse,
  imageOutputFromBytes,
  MAX_VIEW_IMAGE_BYTES,
  mergeManifestDelta,
  sanitizeEnvironmentForPersistence,
  serializeManifestRecord,
  shellQuote,
  truncateOutput,
} from '@openai/agents-core/sandbox/internal';
