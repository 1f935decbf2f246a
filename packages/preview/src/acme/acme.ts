/** Puts the parts of ACME together for one listener. Loaded only where it is configured: the client is large. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Clock, LifecycleLog } from '@instavm/core';
import type { KeyPair } from '../certificates.ts';
import { Handshakes } from '../handshakes.ts';
import type { PreviewTargets } from '../targets.ts';
import { Authority } from './authority.ts';
import { DnsHookSolver } from './dns-hook.ts';
import { HttpListener } from './http-listener.ts';
import { CertificateKeeper } from './keeper.ts';
import type { AcmeOptions } from './options.ts';
import type { Solver } from './solver.ts';
import { CertificateStore } from './store.ts';
import { TlsAlpnSolver } from './tls-alpn.ts';

export type AcmeParts = {
  readonly acme: AcmeOptions;
  /** Of the data directory's previews. */
  readonly directory: string;
  readonly previewDomain: string;
  /** Whether the listener's own certificate, for `*.<preview domain>`, is to be ordered. */
  readonly ordersOwn: boolean;
  readonly targets: PreviewTargets;
  /** Where the TLS listener is; asked when it is there. */
  readonly httpsPort: () => number;
  readonly clock: Clock;
  readonly log: LifecycleLog;
};

export type Acme = {
  readonly certificates: CertificateKeeper;
  readonly handshakes: Handshakes;
  /** The listener's own certificate; undefined: not issued yet. */
  readonly own: () => KeyPair | undefined;
  /** Begins to order and renew: when the listeners can be reached. */
  start(): void;
  close(): Promise<void>;
};

/** @throws Error when a file cannot be read or the address for HTTP-01 is taken */
export async function openAcme(parts: AcmeParts): Promise<Acme> {
  const { acme, previewDomain, targets, clock, log } = parts;
  const directory = join(parts.directory, 'acme', folderOf(acme.directoryUrl));
  const wildcard = `*.${previewDomain}`;
  const tlsAlpn = new TlsAlpnSolver();
  const byHook: readonly Solver[] = acme.dnsHook === undefined ? [] : [new DnsHookSolver(acme.dnsHook, log)];
  const authority = await Authority.open(directory, acme);
  const store = await CertificateStore.open(join(directory, 'certificates'));
  const http = acme.httpListen && (await HttpListener.listen(acme.httpListen, parts.httpsPort));
  const forDomains: readonly Solver[] = [tlsAlpn, ...(http ? [http] : []), ...byHook];
  // RFC 8555 §7.1.3: only DNS proves a wildcard.
  const solversFor = (name: string): readonly Solver[] => (name === wildcard ? byHook : forDomains);
  const certificates = await CertificateKeeper.open({ authority, store, solversFor, previewDomain, clock, log });
  return {
    certificates,
    handshakes: new Handshakes({
      previewDomain,
      targets,
      certificateOf: (name) => certificates.installed(name)?.context,
      proofOf: (name) => tlsAlpn.proofFor(name),
    }),
    own: () => (parts.ordersOwn ? certificates.installed(wildcard)?.certificate : undefined),
    start: () => certificates.start(parts.ordersOwn ? [wildcard] : []),
    close: async () => {
      await Promise.all([certificates.close(), http?.close()]);
    },
  };
}

/** Certificates of one authority, such as a staging one, are none of another's. */
function folderOf(directoryUrl: string): string {
  const digest = createHash('sha256').update(directoryUrl).digest('hex').slice(0, 12);
  return `${URL.parse(directoryUrl)?.hostname ?? 'authority'}-${digest}`;
}
