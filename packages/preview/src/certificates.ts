/** Which certificate the listener shows: the operator's own files, read again when they change, or one of the local CA, renewed in time. */
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Clock, LifecycleLog } from '@instavm/core';
import type { LocalCa } from './local-ca.ts';

export type CertificateFiles = { readonly certPath: string; readonly keyPath: string };
export type KeyPair = { readonly cert: string; readonly key: string };

/** Yields a key pair when there is a newer one than it yielded last. */
export type CertificateSource = { next(): Promise<KeyPair | undefined> };

const CHECK_INTERVAL_MS = 1_000;
/** Well before the end, so that a machine that slept for weeks does not show an expired one. */
const RENEW_BEFORE_MS = 30 * 86_400_000;

export function ownCertificate(files: CertificateFiles): CertificateSource {
  let seen = '';
  return {
    async next() {
      const versions = await Promise.all([files.certPath, files.keyPath].map(versionOf));
      if (versions.join() === seen) return undefined;
      const [cert, key] = await Promise.all([readFile(files.certPath, 'utf8'), readFile(files.keyPath, 'utf8')]);
      createSecureContext({ cert, key }); // throws when the two do not belong together, as halfway through a replacement
      seen = versions.join();
      return { cert, key };
    },
  };
}

async function versionOf(path: string): Promise<string> {
  const { ino, mtimeMs, size } = await stat(path);
  return `${ino}:${mtimeMs}:${size}`;
}

export function localCertificate(ca: LocalCa, clock: Clock): CertificateSource {
  let renewAt = 0;
  return {
    async next() {
      const now = clock.now();
      if (now.getTime() < renewAt) return undefined;
      const issued = await ca.issue(now);
      renewAt = issued.expiresAt.getTime() - RENEW_BEFORE_MS;
      return issued;
    },
  };
}

/** What an authority issued, once it has; until then the fallback's. */
export function issuedCertificate(issued: () => KeyPair | undefined, fallback: CertificateSource): CertificateSource {
  let shown: KeyPair | undefined;
  return {
    async next() {
      const pair = issued();
      if (!pair) return fallback.next();
      if (pair === shown) return undefined;
      shown = pair;
      return pair;
    },
  };
}

/** Hands every newer key pair to `use`. A source that fails leaves the last one in place, and is asked again. @returns a function that stops */
export function follow(source: CertificateSource, use: (pair: KeyPair) => void, log: LifecycleLog): () => void {
  let busy = false;
  let lastProblem = '';
  const check = async (): Promise<void> => {
    try {
      const pair = await source.next();
      if (pair) {
        use(pair);
        log.info({}, 'preview certificate replaced');
      }
      lastProblem = '';
    } catch (error) {
      const problem = String(error);
      if (problem !== lastProblem)
        log.warn({ err: error }, 'the preview certificate cannot be read; the last one stays');
      lastProblem = problem;
    }
  };
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    void check().finally(() => {
      busy = false;
    });
  }, CHECK_INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}
