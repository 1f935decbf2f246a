/**
 * The entry of `instavmd`: keeps the daemon small, then runs it. Every setting must precede the modules it is for.
 *
 * Compiled modules are cached on disk, below the user's own cache directory because they are code, so that a start loads neither the
 * type stripper nor its memory: 16 MiB, and as much again with the first worker thread. So this file is plain JavaScript, and the
 * directory is named in the environment, where worker threads look for it.
 *
 * The heap stays small: the daemon moves bytes in buffers outside of it, so what a heap that grows keeps resident is garbage. The young
 * generation keeps its size, and the old one is collected when it is half as large again as what was alive, not up to four times as
 * large: 200 sandboxes made, used and ended leave 164 MiB resident instead of 182 to 261, for a quarter more full collections and no
 * processor time that could be measured.
 */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--max-semi-space-size=2');
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=50');
process.env.NODE_COMPILE_CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'instavm', 'compiled');
enableCompileCache();
await import('./run.ts');
