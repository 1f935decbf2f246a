/** The certificate authority of previews as the server tells it: checked, then kept as a file that programs can be pointed to. */
import { X509Certificate } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { AsnConvert } from '@peculiar/asn1-schema';
import { Certificate, id_ce_nameConstraints, NameConstraints } from '@peculiar/asn1-x509';
import { type InstaVM, InstaVMError } from 'instavm';

export type KeptAuthority = {
  /** What it can speak for: names under this one. */
  readonly domain: string;
  readonly path: string;
  /** With everything that is trusted here anyway: for programs that take one file instead of the system's. */
  readonly bundlePath: string;
  readonly sha256: string;
};

const DOMAIN = /^[a-z0-9-]+(\.[a-z0-9-]+)+$/;
const ALL_ADDRESSES = ['0.0.0.0/0', '::/0'];

/** @throws InstaVMError `not_available` when there is none; `unexpected_answer` for one that could speak for more than its domain */
export async function keepAuthority(client: InstaVM): Promise<KeptAuthority> {
  const { domain, certificate } = await client.shares.authority();
  const { pem, sha256 } = checked(domain, certificate);
  const directory = join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'instavm');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, `${domain}.ca.pem`);
  const bundlePath = join(directory, `${domain}.bundle.pem`);
  await replace(path, pem);
  const trusted = new Set([...getCACertificates('default'), ...getCACertificates('system')].map((one) => one.trim()));
  await replace(bundlePath, `${[...trusted].join('\n')}\n${pem}`);
  return { domain, path, bundlePath, sha256 };
}

async function replace(path: string, contents: string): Promise<void> {
  const partial = `${path}.${crypto.randomUUID()}.partial`;
  await writeFile(partial, contents, { mode: 0o644, flush: true });
  await rename(partial, path);
}

/** A server is believed about its own previews, and only when the certificate itself says that it is good for no other name (RFC 5280 §4.2.1.10). */
export function checked(domain: string, certificate: string): { readonly pem: string; readonly sha256: string } {
  if (!DOMAIN.test(domain)) throw refused('its domain is no host name');
  const parsed = parse(certificate);
  if (!parsed.ca) throw refused('it is none');
  if (Date.parse(parsed.validTo) < Date.now()) throw refused('it has expired');
  const { extensions = [] } = AsnConvert.parse(parsed.raw, Certificate).tbsCertificate;
  const constraints = extensions.find(({ extnID }) => extnID === id_ce_nameConstraints);
  if (!constraints?.critical) throw refused('it could speak for any name');
  const { permittedSubtrees, excludedSubtrees } = AsnConvert.parse(constraints.extnValue, NameConstraints);
  const permitted = [...(permittedSubtrees ?? [])].map(({ base }) => base.dNSName);
  if (permitted.length !== 1 || permitted[0] !== domain) throw refused(`it could speak for more than ${domain}`);
  const excluded = [...(excludedSubtrees ?? [])].map(({ base }) => base.iPAddress);
  if (!ALL_ADDRESSES.every((all) => excluded.includes(all))) throw refused('it could speak for addresses');
  return { pem: parsed.toString(), sha256: parsed.fingerprint256 };
}

function parse(certificate: string): X509Certificate {
  try {
    return new X509Certificate(certificate);
  } catch {
    throw refused('it is no certificate');
  }
}

const refused = (why: string): InstaVMError =>
  new InstaVMError('unexpected_answer', `the server's certificate authority is not taken: ${why}`);
