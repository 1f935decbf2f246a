/**
 * The entry of `instavmd`: keeps the daemon small, then runs it. Every setting must precede the modules it is for.
 *
 * Compiled modules are cached on disk, below the user's own cache directory because they are code, so that a start loads neither the
 * type stripper nor its memory: 16 MiB, and as much again with the first worker thread. So this file is plain JavaScript, and the
 * directory is named in the environment, where worker threads look for it. The young generation stays small: the daemon moves bytes
 * in buffers outside the heap, and a large one only keeps garbage resident.
 */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--max-semi-space-size=2');
setFlagsFromString('--semi-space-growth-factor=1');
process.env.NODE_COMPILE_CACHE = join(homedir(), '.cache', 'instavm', 'compiled');
enableCompileCache();
await import('./run.ts');
