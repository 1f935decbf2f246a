/** Writes `newc` cpio archives, the form of an initramfs (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). */

export type CpioEntry =
  | { readonly type: 'directory'; readonly path: string; readonly mode: number }
  | { readonly type: 'file'; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | {
      readonly type: 'character-device';
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

const TYPE_BITS = { directory: 0o040000, file: 0o100000, 'character-device': 0o020000 };

/** @param entries paths without a leading slash, every directory before what is in it; all are owned by root */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    const data = entry.type === 'file' ? entry.data : new Uint8Array();
    const device = entry.type === 'character-device' ? entry : { major: 0, minor: 0 };
    parts.push(...member(index + 1, TYPE_BITS[entry.type] | entry.mode, entry.path, data, device));
  });
  parts.push(...member(0, 0, 'TRAILER!!!', new Uint8Array(), { major: 0, minor: 0 }));
  return Buffer.concat(parts);
}

function member(
  inode: number,
  mode: number,
  path: string,
  data: Uint8Array,
  device: { readonly major: number; readonly minor: number },
): Buffer[] {
  const name = Buffer.from(`${path}\0`);
  // inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, name size, checksum
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, device.major, device.minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return [padded(Buffer.concat([header, name])), padded(Buffer.from(data))];
}

/** Header with name, and data, each end on a multiple of four bytes. */
function padded(part: Buffer): Buffer {
  return Buffer.concat([part, Buffer.alloc((4 - (part.length % 4)) % 4)]);
}
