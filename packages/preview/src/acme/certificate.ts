/** A certificate with its key as it is kept: checked when it comes, from an authority or from the disk. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

export type Certificate = {
  /** PEM, the leaf first. */
  readonly cert: string;
  readonly key: string;
  readonly startsAt: Date;
  readonly expiresAt: Date;
};

const MAX_CHAIN = 10;
const CERTIFICATES = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const KEY = /-----BEGIN (EC |RSA )?PRIVATE KEY-----[^-]+-----END (EC |RSA )?PRIVATE KEY-----/;

/** @throws Error when it is none, is not for the name, or belongs to another key */
export function checkedCertificate(name: string, chain: unknown, key: string): Certificate {
  const parts = typeof chain === 'string' ? (chain.match(CERTIFICATES) ?? []) : [];
  if (parts.length > MAX_CHAIN) throw new Error(`the certificate chain has more than ${MAX_CHAIN} certificates`);
  const [leaf, ...others] = parts.map((part) => new X509Certificate(part));
  if (!leaf) throw new Error('there is no certificate');
  const example = name.replace(/^\*\./, 'x.');
  if (leaf.checkHost(example, { subject: 'never' }) === undefined) {
    throw new Error(`the certificate is not for ${name} but for ${leaf.subjectAltName ?? 'no name'}`);
  }
  if (!leaf.checkPrivateKey(createPrivateKey(key))) throw new Error('certificate and key do not belong together');
  return {
    cert: [leaf, ...others].map(String).join(''),
    key,
    startsAt: leaf.validFromDate,
    expiresAt: leaf.validToDate,
  };
}

/** What a file of ours has in it, complete or not. */
export function sectionsOf(pem: string): { readonly cert: string | undefined; readonly key: string | undefined } {
  return { cert: pem.match(CERTIFICATES)?.join('\n'), key: KEY.exec(pem)?.[0] };
}
