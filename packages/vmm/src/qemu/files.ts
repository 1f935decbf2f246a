/** What templates and snapshots do with their files: flush them, and tell whether they are what they were. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { constants, open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';

/** A file's contents, or a directory's entries, are on the disk afterwards. */
export async function flush(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  await handle.sync().finally(() => handle.close());
}

export async function sha256Hex(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash);
  return hash.digest('hex');
}
