/**
 * The entry of `instavmd`: keeps the daemon small, then runs it. Both settings must precede the modules they are for.
 *
 * Compiled modules are cached on disk, below the user's own cache directory because they are code, so that a start loads neither the
 * type stripper nor its memory. The young generation stays small: the daemon moves bytes in buffers outside the heap, and a
 * large one only keeps garbage resident.
 */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--max-semi-space-size=2');
setFlagsFromString('--semi-space-growth-factor=1');
enableCompileCache(join(homedir(), '.cache', 'instavm', 'compiled'));
await import('./run.ts');
