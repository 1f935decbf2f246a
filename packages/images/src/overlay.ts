/**
 * The blank overlay: an empty ext4 filesystem in a sparse file, the start of every template's writable disk.
 *
 * mke2fs zeroes the inode tables now, so that the guest does no background initialisation; the copy then leaves those zeros
 * out, so that the file, and every overlay copied from it, occupies a few hundred kilobytes.
 */
import { rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ArtifactRecipe } from './artifact-cache.ts';
import { runCommand } from './command.ts';

const OVERLAY_SIZE_BYTES = 4 * 1024 ** 3;
const MKE2FS = ['-q', '-F', '-t', 'ext4', '-m', '0', '-J', 'size=8', '-O', '^resize_inode,^metadata_csum,uninit_bg'];
const EXTENDED = 'lazy_itable_init=0,lazy_journal_init=0,nodiscard,packed_meta_blocks=1,root_owner=0:0';

export const overlayRecipe: ArtifactRecipe = {
  kind: 'overlay',
  inputs: { revision: 2, sizeBytes: OVERLAY_SIZE_BYTES, mke2fs: MKE2FS, extended: EXTENDED },
  async build(directory, progress, signal) {
    progress('formatting the blank overlay');
    const zeroed = join(directory, 'zeroed.ext4');
    await writeFile(zeroed, '');
    await truncate(zeroed, OVERLAY_SIZE_BYTES);
    await runCommand('mke2fs', [...MKE2FS, '-E', EXTENDED, zeroed], { signal });
    await runCommand('cp', ['--sparse=always', zeroed, join(directory, 'overlay.ext4')], { signal });
    await rm(zeroed);
  },
};
