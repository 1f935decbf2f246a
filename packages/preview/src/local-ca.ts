/**
 * The certificate authority of one data directory: what a person trusts once so that previews open without a warning. Its name constraint
 * (RFC 5280 §4.2.1.10) lets it speak for names under the preview domain, for no address and for nothing else, should its key ever leak.
 */
import 'reflect-metadata';
import { createPrivateKey, type webcrypto as WebCrypto, webcrypto } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AsnConvert } from '@peculiar/asn1-schema';
import {
  GeneralName as AsnGeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  id_ce_nameConstraints,
  NameConstraints,
} from '@peculiar/asn1-x509';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { readOrCreateSecret } from './files.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
const CA_DAYS = 3_650;
/** Apple and Chromium refuse longer ones even from a CA that the user trusts. */
const LEAF_DAYS = 90;
/** Clocks of browsers differ. */
const BACKDATE_MS = 3_600_000;
const ALL_ADDRESSES = ['0.0.0.0/0', '::/0'];

export type Issued = { readonly cert: string; readonly key: string; readonly expiresAt: Date };

export type LocalCa = {
  readonly domain: string;
  /** The certificate alone, PEM, in a file readable by everyone. */
  readonly certPath: string;
  readonly certPem: string;
  /** A new certificate with a new key for the domain and every name directly under it. */
  issue(now: Date): Promise<Issued>;
};

/**
 * The CA of a directory and domain; made on first use. Key and certificate are one file (mode 0600), so that they never disagree.
 * @param domain at least two labels: clients refuse a wildcard directly under a top-level name
 */
export async function createLocalCa(directory: string, domain: string): Promise<LocalCa> {
  const pem = await readOrCreateSecret(join(directory, `${domain}.ca-key.pem`), () => makeCa(domain, new Date()));
  const certificate = new X509Certificate(section(pem, 'CERTIFICATE'));
  const signingKey = await importPrivateKey(section(pem, 'PRIVATE KEY'));

  const certPath = join(directory, `${domain}.ca.pem`);
  const certPem = `${section(pem, 'CERTIFICATE')}\n`;
  const partial = `${certPath}.${crypto.randomUUID()}.partial`;
  await writeFile(partial, certPem, { mode: 0o644, flush: true });
  await rename(partial, certPath);

  return {
    domain,
    certPath,
    certPem,
    async issue(now) {
      const keys = await generateKeys();
      const expiresAt = new Date(now.getTime() + LEAF_DAYS * DAY_MS);
      const leaf = await X509CertificateGenerator.create({
        subject: [{ CN: [`*.${domain}`] }],
        issuer: certificate.subjectName,
        notBefore: new Date(now.getTime() - BACKDATE_MS),
        notAfter: expiresAt,
        publicKey: keys.publicKey,
        signingKey,
        signingAlgorithm: ALGORITHM,
        extensions: [
          new BasicConstraintsExtension(false, undefined, true),
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
          new SubjectAlternativeNameExtension([
            { type: 'dns', value: `*.${domain}` },
            { type: 'dns', value: domain },
          ]),
          await AuthorityKeyIdentifierExtension.create(certificate.publicKey),
          await SubjectKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      return { cert: leaf.toString('pem'), key: await exportPrivateKey(keys.privateKey), expiresAt };
    },
  };
}

async function makeCa(domain: string, now: Date): Promise<string> {
  const keys = await generateKeys();
  const subtree = (base: AsnGeneralName): GeneralSubtree => new GeneralSubtree({ base });
  const onlyDomain = new NameConstraints({
    permittedSubtrees: new GeneralSubtrees([subtree(new AsnGeneralName({ dNSName: domain }))]),
    // A constraint on names says nothing of addresses.
    excludedSubtrees: new GeneralSubtrees(ALL_ADDRESSES.map((iPAddress) => subtree(new AsnGeneralName({ iPAddress })))),
  });
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: [{ O: ['InstaVM'] }, { CN: [`InstaVM local previews (${domain})`] }],
    notBefore: new Date(now.getTime() - BACKDATE_MS),
    notAfter: new Date(now.getTime() + CA_DAYS * DAY_MS),
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      new Extension(id_ce_nameConstraints, true, AsnConvert.serialize(onlyDomain)),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return `${await exportPrivateKey(keys.privateKey)}${certificate.toString('pem')}\n`;
}

const generateKeys = (): Promise<WebCrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<WebCrypto.CryptoKeyPair>;

async function exportPrivateKey(key: WebCrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ format: 'pem', type: 'pkcs8' })
    .toString();
}

function importPrivateKey(pem: string): Promise<WebCrypto.CryptoKey> {
  const der = createPrivateKey(pem).export({ format: 'der', type: 'pkcs8' });
  return webcrypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']) as Promise<WebCrypto.CryptoKey>;
}

function section(pem: string, label: string): string {
  const found = new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----`).exec(pem)?.[0];
  if (found === undefined)
    throw new Error(`the file of the preview CA has no ${label}; remove it to have a new CA made`);
  return found;
}
