/**
 * The kernel as the ELF file that Firecracker boots. Debian ships it LZ4-compressed inside `vmlinuz`; where the payload lies is told by the
 * setup header (Linux: Documentation/arch/x86/boot.rst, fields `setup_sects`, `payload_offset`, `payload_length`).
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Artifact, ArtifactRecipe } from './artifact-cache.ts';
import { runCommand } from './command.ts';

const SETUP_SECTS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR_BYTES = 512;
/** A header of this field's value 0 means 4, for very old kernels. */
const DEFAULT_SETUP_SECTS = 4;
/** LZ4's legacy frame, which the kernel's build uses. */
const LZ4_LEGACY_MAGIC = 0x184c2102;
/** The kernel's build appends the unpacked size to the frame. */
const SIZE_BYTES = 4;

export function kernelElfRecipe(kernel: Artifact): ArtifactRecipe {
  return {
    kind: 'kernel-elf',
    inputs: { revision: 1, kernel: kernel.digest },
    async build(directory, progress, signal) {
      progress('unpacking the kernel for Firecracker');
      const packed = join(directory, 'packed.lz4');
      await writeFile(packed, compressedPayload(await readFile(join(kernel.directory, 'vmlinuz'))));
      await runCommand('lz4', ['-dq', packed, join(directory, 'vmlinux')], { signal });
      await rm(packed);
    },
  };
}

/** @throws Error when the kernel is not compressed with LZ4 */
export function compressedPayload(image: Buffer): Buffer {
  const setupSectors = image.readUInt8(SETUP_SECTS) || DEFAULT_SETUP_SECTS;
  const start = (setupSectors + 1) * SECTOR_BYTES + image.readUInt32LE(PAYLOAD_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH) - SIZE_BYTES);
  if (payload.length < SIZE_BYTES || payload.readUInt32LE(0) !== LZ4_LEGACY_MAGIC)
    throw new Error('the kernel image holds no LZ4 payload; Firecracker cannot boot it');
  return payload;
}
