/** Where generated files live on this machine. Pure: the caller passes its environment. */
import { homedir } from 'node:os';
import { join } from 'node:path';

/** `INSTAVM_CACHE_DIR`, else `instavm` below the user's cache directory (`XDG_CACHE_HOME`, by default `~/.cache`). */
export function defaultCacheDirectory(env: Readonly<Record<string, string | undefined>>): string {
  if (env.INSTAVM_CACHE_DIR) return env.INSTAVM_CACHE_DIR;
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'instavm');
}
