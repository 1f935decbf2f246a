/** What custom domains need of the host: DNS for the proof, certificates of the preview listener, and a look at how the listener answers. */
import { X509Certificate } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { isIPv6 } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { DomainPorts, DomainRecord } from '@instavm/core';
import type { DomainCertificateState, PreviewProxy } from '@instavm/preview';
import { InstaVMError } from '@instavm/wire';
import type { Config } from './config.ts';

const QUERY_TIMEOUT_MS = 3_000;
const QUERY_TRIES = 2;
const PROBE_TIMEOUT_MS = 5_000;
/** A path that the proxy answers itself, waking nobody, and what it then says of a share that is there. */
const PROBE_PATH = '/.instavm/private';
const SHARE_IS_THERE = ['share_open', 'share_private'];
/** Answers of DNS that mean that there is no such record (c-ares). */
const NOTHING = ['ENOTFOUND', 'ENODATA'];
const NO_CERTIFICATE: DomainCertificateState = { certPresent: false, keyPresent: false, expiresAt: null };

/** @param servers `address[:port]`; none: those of the host */
export const txtLookUp =
  (servers: readonly string[]): DomainPorts['lookUpTxt'] =>
  async (name, signal) => {
    const resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: QUERY_TRIES });
    if (servers.length > 0) resolver.setServers(servers);
    const cancel = (): void => resolver.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      // A long value comes in pieces (RFC 1035 §3.3.14).
      return (await resolver.resolveTxt(name)).map((pieces) => pieces.join(''));
    } catch (error) {
      if (NOTHING.includes((error as NodeJS.ErrnoException).code ?? '')) return [];
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  };

/**
 * Those of a certificate authority, if the operator named one; else the operator's own certificate, for the names that it covers.
 * @param ownPath of the operator's certificate, if there is one
 */
export function domainCertificates(
  proxy: PreviewProxy | undefined,
  ownPath: string | undefined,
): DomainPorts['certificates'] {
  const ofAuthority = proxy?.certificates;
  return {
    async issue(domain, signal) {
      if (ofAuthority !== undefined) return ofAuthority.issue(domain, signal);
      throw new InstaVMError('not_available', `${domain} is yours, but this server orders no certificates`, {
        hint: 'Its operator sets INSTAVM_ACME_DIRECTORY, or adds the name to the certificate in INSTAVM_PREVIEW_CERT; then verify again.',
      });
    },
    async state(domain) {
      if (ofAuthority !== undefined) return ofAuthority.state(domain);
      const own = ownPath && new X509Certificate(await readFile(ownPath));
      if (!own || !isFor(own, domain)) return NO_CERTIFICATE;
      return { certPresent: true, keyPresent: true, expiresAt: new Date(own.validTo) };
    },
    forget: async (domain) => ofAuthority?.forget(domain),
  };
}

const isFor = (certificate: X509Certificate, domain: string): boolean =>
  certificate.checkHost(domain, { subject: 'never', partialWildcards: false }) !== undefined;

export type DomainHealth = DomainCertificateState & { readonly proxyActive: boolean };

export function domainHealthOf(
  proxy: PreviewProxy | undefined,
  listen: Config['INSTAVM_PREVIEW_LISTEN'],
  certificates: DomainPorts['certificates'],
): (record: DomainRecord) => Promise<DomainHealth> {
  // The configuration may have left the port to the system.
  const port = Number(URL.parse(proxy?.urlOf('any') ?? '')?.port || 443);
  return async ({ domain }) => ({
    ...(await certificates.state(domain)),
    proxyActive: listen !== undefined && (await answersFor(reachable(listen.host), port, domain)),
  });
}

/**
 * Asks the preview listener for a domain as a visitor would, over TLS.
 * @returns whether it answers for a share, with a certificate for the name that is valid now; who issued that is not judged
 */
function answersFor(host: string, port: number, domain: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = request({
      ...{ host, port, servername: domain, agent: false, rejectUnauthorized: false },
      ...{ method: 'HEAD', path: PROBE_PATH, headers: { host: domain }, timeout: PROBE_TIMEOUT_MS },
      signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    });
    probe.on('response', (response) => {
      const certificate = (response.socket as TLSSocket).getPeerX509Certificate();
      const code = String(response.headers['instavm-preview']);
      response.destroy();
      resolve(certificate !== undefined && isValid(certificate, domain) && SHARE_IS_THERE.includes(code));
    });
    // Refused, cut off, silent: what is asked is whether it answers.
    probe.on('error', () => resolve(false));
    probe.end();
  });
}

function isValid(certificate: X509Certificate, domain: string): boolean {
  const now = Date.now();
  return (
    isFor(certificate, domain) && Date.parse(certificate.validFrom) <= now && now < Date.parse(certificate.validTo)
  );
}

/** Where a listener on all addresses is reached. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return isIPv6(host) && /^[0:]+$/.test(host) ? '::1' : host;
}
