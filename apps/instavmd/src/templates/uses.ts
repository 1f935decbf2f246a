/**
 * Which data directories use which templates of a cache directory that several may share, recorded there before the use, so that whoever prunes
 * templates knows where to look. A record names the daemon too: what a running one knows, it may restore at any time.
 *
 *     <cache>/templates/.used/lock               held while a use is recorded, and while templates are taken away
 *     <cache>/templates/.used/<key>/<id>.json    one data directory's use; its time is that of the last daemon that had it
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, stat, utimes, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { takeExclusiveLock } from '@instavm/store';
import { fateOf, parseJson, processToken } from '@instavm/vmm/host-files';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';

const ID_DIGITS = 12;
const LOCK_RETRY_MS = 20;
/** Whoever holds it renames directories, which takes milliseconds. */
const LOCK_DEADLINE_MS = 30_000;
const REFRESH_EVERY_MS = 6 * 3_600_000;
/** A daemon in a container that we cannot look into runs when it has said so since then. */
const REFRESHED_WITHIN_MS = 24 * 3_600_000;

const Use = z.object({ dataDirectory: z.string(), daemon: z.string() });

export const usesDirectory = (cacheDirectory: string): string => join(cacheDirectory, 'templates', '.used');

/** One data directory's uses, recorded by the process that is about to have them. */
export class TemplateUses {
  readonly #cacheDirectory: string;
  readonly #dataDirectory: string;
  readonly #held = new Set<string>();

  constructor(cacheDirectory: string, dataDirectory: string) {
    this.#cacheDirectory = cacheDirectory;
    this.#dataDirectory = resolve(dataDirectory);
  }

  /** From here on, and until this process has ended, nobody prunes the template, whether it is there yet or not. */
  async hold(key: string): Promise<void> {
    if (this.#held.has(key)) return;
    await withTemplatesLocked(this.#cacheDirectory, async () => {
      const path = this.#pathOf(key);
      await mkdir(join(path, '..'), { recursive: true, mode: 0o700 });
      const use: z.infer<typeof Use> = { dataDirectory: this.#dataDirectory, daemon: processToken() };
      await writeFile(`${path}.partial`, JSON.stringify(use), { mode: 0o600, flush: true });
      await rename(`${path}.partial`, path);
    });
    this.#held.add(key);
  }

  async refresh(): Promise<void> {
    const now = new Date();
    for (const key of this.#held) await utimes(this.#pathOf(key), now, now);
  }

  /** @param report told when that failed. @returns how to stop */
  keepFresh(report: (error: unknown) => void): () => void {
    const timer = setInterval(() => void this.refresh().catch(report), REFRESH_EVERY_MS).unref();
    return () => clearInterval(timer);
  }

  #pathOf(key: string): string {
    const id = createHash('sha256').update(this.#dataDirectory).digest('hex').slice(0, ID_DIGITS);
    return join(usesDirectory(this.#cacheDirectory), key, `${id}.json`);
  }
}

export type RecordedUse = {
  readonly path: string;
  readonly dataDirectory: string;
  readonly daemonRuns: boolean;
  readonly lastUsedAt: Date;
};

/** By the keys of templates, which need not be there. What cannot be read as a record is none. */
export async function recordedUses(cacheDirectory: string): Promise<Map<string, RecordedUse[]>> {
  const root = usesDirectory(cacheDirectory);
  const found = new Map<string, RecordedUse[]>();
  for (const entry of await readdir(root, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isDirectory()) continue;
    const uses: RecordedUse[] = [];
    for (const name of await readdir(join(root, entry.name)).catch(() => []))
      if (name.endsWith('.json')) uses.push(...(await readUse(join(root, entry.name, name))));
    found.set(entry.name, uses);
  }
  return found;
}

/** @returns none when it went meanwhile */
async function readUse(path: string): Promise<RecordedUse[]> {
  const [text, mtime] = await Promise.all([
    readFile(path, 'utf8').catch(() => ''),
    stat(path).then(
      (found) => found.mtime,
      () => new Date(0),
    ),
  ]);
  const use = parseJson(Use, text);
  if (use === undefined) return [];
  const fate = fateOf(use.daemon);
  const daemonRuns = fate === 'runs' || (fate === 'unknown' && Date.now() - mtime.getTime() < REFRESHED_WITHIN_MS);
  return [{ path, dataDirectory: use.dataDirectory, daemonRuns, lastUsedAt: mtime }];
}

/** @throws conflict when another process holds the lock for longer than any should */
export async function withTemplatesLocked<T>(cacheDirectory: string, work: () => Promise<T>): Promise<T> {
  const directory = usesDirectory(cacheDirectory);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const until = performance.now() + LOCK_DEADLINE_MS; performance.now() < until; await sleep(LOCK_RETRY_MS)) {
    const unlock = takeExclusiveLock(join(directory, 'lock'));
    if (unlock !== undefined) return work().finally(unlock);
  }
  throw new InstaVMError('conflict', `the templates in ${cacheDirectory} are locked by another process`, {
    hint: `Look which one has ${join(directory, 'lock')} open, and end it.`,
  });
}
