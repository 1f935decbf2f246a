export { ArtifactCache, type Progress } from './artifact-cache.ts';
export {
  ensureGuestImages,
  GUEST_AGENT_PATH,
  guestImagesNeedDownload,
  locateGuestImages,
  MissingGuestImages,
} from './guest-images.ts';
export { defaultCacheDirectory } from './paths.ts';
