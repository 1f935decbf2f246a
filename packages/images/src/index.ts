export { type Artifact, ArtifactCache, type ArtifactRecipe, type Progress, sha256OfFile } from './artifact-cache.ts';
export { type CommandOptions, runCommand } from './command.ts';
export { type CpioEntry, cpioArchive } from './cpio.ts';
export {
  ensureGuestImages,
  GUEST_AGENT_PATH,
  guestImagesNeedDownload,
  locateGuestImages,
  MissingGuestImages,
} from './guest-images.ts';
export { kernelWithModules } from './kernel.ts';
export { defaultCacheDirectory } from './paths.ts';
