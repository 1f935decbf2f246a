/** An archive that is a reference to a snapshot of the server; the Python providers write and read the same. */
import { randomBytes } from 'node:crypto';

const PREFIX = '__INSTAVM_SNAPSHOT__';

export const snapshotReference = (snapshotId: string): Uint8Array =>
  Buffer.from(PREFIX + JSON.stringify({ snapshot_id: snapshotId }));

/** @returns undefined when the bytes are something else. @throws TypeError for a reference to nothing */
export function referencedSnapshot(bytes: Uint8Array): string | undefined {
  const text = Buffer.from(bytes.subarray(0, 1024)).toString('utf8');
  if (!text.startsWith(PREFIX)) return undefined;
  const id = (JSON.parse(text.slice(PREFIX.length)) as { snapshot_id?: unknown }).snapshot_id;
  if (typeof id !== 'string') throw new TypeError('the reference to a snapshot has no snapshot_id');
  return id;
}

/** As the SDKs call those that nobody asked for by name; the server deletes them when nobody uses them. */
export const runSnapshotName = (): string => `sandbox-${randomBytes(6).toString('hex')}`;
