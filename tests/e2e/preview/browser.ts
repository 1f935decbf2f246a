/** Debian's Chromium, without a window, in a throw-away home in which the local certificate authority is trusted as a user would import it. */
import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Browser, chromium } from 'playwright-core';

const run = promisify(execFile);
const CHROMIUM = '/usr/bin/chromium';
const CERTUTIL = '/usr/bin/certutil';
/** For whatever a page takes its time for: an emulated guest behind it, and perhaps a busy machine. */
export const PATIENCE_MS = 90_000;

/** @returns why there is no browser here; undefined when there is one */
export async function browserIsMissing(): Promise<string | undefined> {
  for (const path of [CHROMIUM, CERTUTIL]) {
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (!isThere) return `${path} is missing; run: apt-get install chromium libnss3-tools`;
  }
  return undefined;
}

export type TestBrowser = { readonly browser: Browser; close(): Promise<void> };

/** @param caPath undefined: no more is trusted than Chromium brings */
export async function openBrowser(caPath: string | undefined): Promise<TestBrowser> {
  const home = await mkdtemp(join(tmpdir(), 'instavm-browser-'));
  const database = join(home, '.pki/nssdb');
  await mkdir(database, { recursive: true });
  await run(CERTUTIL, ['-d', `sql:${database}`, '-N', '--empty-password']);
  if (caPath !== undefined)
    await run(CERTUTIL, ['-d', `sql:${database}`, '-A', '-n', 'instavm previews', '-t', 'C,,', '-i', caPath]);
  // Chromium's own sandbox does not start as root.
  const isRoot = process.getuid?.() === 0;
  const env = { ...process.env, HOME: home };
  const browser = await chromium.launch({ executablePath: CHROMIUM, env, chromiumSandbox: !isRoot });
  return {
    browser,
    close: async () => {
      await browser.close();
      await rm(home, { recursive: true, force: true });
    },
  };
}
