/** Tells the tests that boot microVMs where setup left the guest's images. */
import { defaultCacheDirectory, GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';

/** @throws MissingGuestImages, with the command that makes them */
export default async function setup(): Promise<void> {
  const cacheDirectory = defaultCacheDirectory(process.env);
  const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
  process.env.INSTAVM_TEST_IMAGES = JSON.stringify(images);
  process.env.INSTAVM_TEST_CACHE_DIR = cacheDirectory;
}
