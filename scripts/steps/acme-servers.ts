/**
 * The certificate authority and the DNS server that tests of ACME run against: Pebble and its challenge test server, built by Go once for all clones
 * of the machine.
 */
import { access, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const MODULE = 'github.com/letsencrypt/pebble/v2';
const VERSION = 'v2.10.1';
const PROGRAMS = ['pebble', 'pebble-challtestsrv'] as const;

export type AcmeServers =
  /** Where the programs are. */
  { readonly directory: string } | { readonly missing: string };

export async function locateAcmeServers(cacheDirectory: string): Promise<AcmeServers> {
  const directory = directoryIn(cacheDirectory);
  const isThere = await access(directory).then(
    () => true,
    () => false,
  );
  return isThere ? { directory } : { missing: 'Pebble is not built; install Go (https://go.dev/dl), then: npm test' };
}

/** Without Go there is nothing to build them with: says so, and leaves the tests to be skipped. @throws in CI, where none may be */
export async function buildAcmeServers(
  cacheDirectory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  if ('directory' in (await locateAcmeServers(cacheDirectory))) return 'unchanged';
  const version = await run('go', ['version'], { signal }).catch((error: unknown) => {
    signal.throwIfAborted();
    if (process.env.CI === 'true') throw error;
  });
  if (version === undefined)
    return 'skipped: Go is not on the PATH (https://go.dev/dl), so the tests of ACME are skipped';

  const directory = directoryIn(cacheDirectory);
  const partial = `${directory}.${process.pid}.partial`;
  try {
    await mkdir(partial, { recursive: true });
    progress(`compiling Pebble ${VERSION} (go install)`);
    const packages = PROGRAMS.map((name) => `${MODULE}/cmd/${name}@${VERSION}`);
    await run('go', ['install', ...packages], { env: { GOBIN: partial, CGO_ENABLED: '0' }, signal });
    await rename(partial, directory);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return `built ${VERSION}`;
}

const directoryIn = (cacheDirectory: string): string => join(cacheDirectory, 'acme-servers', `pebble-${VERSION}`);
