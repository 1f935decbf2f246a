/** What the listener needs before it can listen: the secret of links, the certificate that it shows, and ACME where that is configured. */
import { systemClock } from '@instavm/core';
import type { Acme } from './acme/acme.ts';
import {
  type CertificateSource,
  issuedCertificate,
  type KeyPair,
  localCertificate,
  ownCertificate,
} from './certificates.ts';
import { createLocalCa, type LocalCa } from './local-ca.ts';
import type { PreviewProxyOptions } from './proxy.ts';
import { TokenSigner } from './tokens.ts';

export type ListenerParts = {
  readonly signer: TokenSigner;
  readonly source: CertificateSource;
  /** The first of the source. */
  readonly pair: KeyPair | undefined;
  /** Whom visitors must trust: the local CA, where its certificates are the ones shown. */
  readonly authority: LocalCa | undefined;
  readonly acme: Acme | undefined;
};

/** @param httpsPort where the listener is, asked when it listens */
export async function openListenerParts(options: PreviewProxyOptions, httpsPort: () => number): Promise<ListenerParts> {
  const signer = await TokenSigner.open(options.directory);
  const acme = await openAcme(options, httpsPort);
  try {
    const { source, authority } = await openSource(options, acme);
    return { signer, source, pair: await source.next(), authority, acme };
  } catch (error) {
    await acme?.close();
    throw error;
  }
}

async function openSource(options: PreviewProxyOptions, acme: Acme | undefined) {
  const { certificate, directory, domain, log, clock = systemClock } = options;
  if (certificate) return { source: ownCertificate(certificate), authority: undefined };
  const ca = await createLocalCa(directory, domain);
  const local = localCertificate(ca, clock);
  if (!acme || !ordersOwn(options)) return { source: local, authority: ca };
  if (!acme.own()) {
    log.info({ ca: ca.certPath }, 'previews show a certificate of the local CA until the first one by ACME is issued');
  }
  return { source: issuedCertificate(acme.own, local), authority: undefined };
}

async function openAcme(options: PreviewProxyOptions, httpsPort: () => number): Promise<Acme | undefined> {
  const { acme, directory, domain: previewDomain, targets, log, clock = systemClock } = options;
  if (!acme) return undefined;
  const { openAcme: open } = await import('./acme/acme.ts');
  return open({ acme, directory, previewDomain, ordersOwn: ordersOwn(options), targets, httpsPort, clock, log });
}

/** No authority issues for names under `localhost` (RFC 6761 §6.3). */
const ordersOwn = ({ acme, certificate, domain }: PreviewProxyOptions): boolean =>
  acme?.dnsHook !== undefined && certificate === undefined && !domain.endsWith('.localhost');
