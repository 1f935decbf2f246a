/** A real certificate authority that speaks ACME, and the DNS that it believes, both on loopback and gone after the test. */
import 'reflect-metadata';
import { type ChildProcess, spawn } from 'node:child_process';
import { createPrivateKey, randomInt, webcrypto } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { BasicConstraintsExtension, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';

const STARTS_WITHIN_MS = 120_000;
/**
 * Below what the kernel gives to whoever asks for any port (`ip_local_port_range`), so that nobody is given one of these between now and when it is
 * listened on. Each of vitest's workers has its own.
 */
const FIRST_PORT = 10_000;
const WORKERS = 40;
const PORTS_EACH = 500;

export type PebbleOptions = {
  /** Where it looks for TLS-ALPN-01 and HTTP-01. */
  readonly tlsPort: number;
  readonly httpPort?: number;
  /** Of the certificates that it issues. */
  readonly validitySeconds?: number;
  /** Accounts need these: key id → HMAC key, base64url. */
  readonly externalAccounts?: Readonly<Record<string, string>>;
  /** Of a hundred good nonces. */
  readonly noncesRejected?: number;
};

/** @returns why tests against Pebble cannot run; undefined when they can. @throws in CI, where they have to */
export function whyNoPebble(): string | undefined {
  const found = located();
  if ('directory' in found) return undefined;
  if (process.env.CI === 'true') throw new Error(found.missing);
  console.warn(`Tests of ACME are skipped: ${found.missing}`);
  return found.missing;
}

function located(): { readonly directory: string } | { readonly missing: string } {
  // Of vitest's global setup.
  return JSON.parse(process.env.INSTAVM_TEST_ACME_SERVERS ?? '{"missing":"run the tests from the repository’s root"}');
}

export class Pebble {
  readonly directoryUrl: string;
  /** PEM file that the directory's own certificate is believed by. */
  readonly caPath: string;
  readonly directory: string;
  /** Of the DNS server, `address:port`. */
  readonly dns: string;
  readonly #dnsControl: string;
  readonly #management: string;
  readonly #children: ChildProcess[] = [];
  readonly #said: string[] = [];

  /** @throws with what they said when they do not start */
  static async start(options: PebbleOptions): Promise<Pebble> {
    const directory = await mkdtemp(join(tmpdir(), 'instavm-pebble-'));
    const pebble = new Pebble(directory, await freePorts(4));
    try {
      await pebble.#start(options);
      return pebble;
    } catch (error) {
      await pebble.stop();
      throw new Error(`Pebble does not start:\n${pebble.#said.join('')}`, { cause: error });
    }
  }

  private constructor(directory: string, [acme, management, dns, dnsControl]: readonly number[]) {
    this.directory = directory;
    this.caPath = join(directory, 'cert.pem');
    this.directoryUrl = `https://localhost:${acme}/dir`;
    this.#management = `https://localhost:${management}`;
    this.#dnsControl = `http://127.0.0.1:${dnsControl}`;
    this.dns = `127.0.0.1:${dns}`;
  }

  /** PEM of the root that its certificates lead to. */
  root(): Promise<string> {
    return this.#get(`${this.#management}/roots/0`);
  }

  /** Makes a name resolve to an address; all others are 127.0.0.1. */
  async resolve(name: string, address: string): Promise<void> {
    await this.#control('clear-a', { host: `${name}.` });
    await this.#control('add-a', { host: `${name}.`, addresses: [address] });
  }

  /** One of the TXT records of a name. */
  async addTxt(name: string, value: string): Promise<void> {
    await this.#control('set-txt', { host: `${name}.`, value });
  }

  async clearTxt(name: string): Promise<void> {
    await this.#control('clear-txt', { host: `${name}.` });
  }

  async failLookups(name: string): Promise<void> {
    await this.#control('set-servfail', { host: `${name}.` });
  }

  /** A program for DNS-01 that sets and clears records here, and writes down each call. @returns its path, and that of the list */
  async dnsHook(): Promise<{ readonly program: string; readonly calls: string }> {
    const program = join(this.directory, 'dns-hook.mjs');
    const calls = join(this.directory, 'dns-hook-calls');
    await writeFile(
      program,
      `#!${process.execPath}
import { appendFileSync } from 'node:fs';
const [action, name, value] = process.argv.slice(2);
appendFileSync(${JSON.stringify(calls)}, [action, name, value].join(' ') + '\\n');
const path = { add: 'set-txt', remove: 'clear-txt' }[action];
const body = JSON.stringify({ host: name + '.', ...(action === 'add' ? { value } : {}) });
const { status } = await fetch(${JSON.stringify(`${this.#dnsControl}/`)} + path, { method: 'POST', body });
if (status !== 200) throw new Error('status ' + status);
`,
    );
    await chmod(program, 0o755);
    return { program, calls };
  }

  async stop(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  async #start(options: PebbleOptions): Promise<void> {
    const found = located();
    if ('missing' in found) throw new Error(found.missing);
    const portOf = (url: string): string => new URL(url).port;
    const { certificate, privateKey } = await writeServerCertificate(this.directory);
    const { externalAccounts, validitySeconds = 90 * 86_400 } = options;
    const config = {
      listenAddress: `127.0.0.1:${portOf(this.directoryUrl)}`,
      managementListenAddress: `127.0.0.1:${portOf(this.#management)}`,
      certificate,
      privateKey,
      httpPort: options.httpPort ?? 1,
      tlsPort: options.tlsPort,
      externalAccountBindingRequired: externalAccounts !== undefined,
      externalAccountMACKeys: externalAccounts ?? {},
      domainBlocklist: ['blocked-domain.example'],
      retryAfter: { authz: 1, order: 1 },
      profiles: { default: { description: 'of the tests', validityPeriod: validitySeconds } },
    };
    const configPath = join(this.directory, 'config.json');
    await writeFile(configPath, JSON.stringify({ pebble: config }));
    const off = ['-doh', '', '-http01', '', '-https01', '', '-tlsalpn01', '', '-defaultIPv6', ''];
    const control = new URL(this.#dnsControl).host;
    this.#spawn(join(found.directory, 'pebble-challtestsrv'), ['-dnsserver', this.dns, '-management', control, ...off]);
    this.#spawn(join(found.directory, 'pebble'), ['-config', configPath, '-dnsserver', this.dns], {
      PEBBLE_VA_NOSLEEP: '1',
      PEBBLE_AUTHZREUSE: '0',
      PEBBLE_WFE_NONCEREJECT: String(options.noncesRejected ?? 0),
    });
    for (const until = Date.now() + STARTS_WITHIN_MS; ; ) {
      try {
        await this.#get(this.directoryUrl);
        await this.#control('clear-txt', { host: 'ready.' });
        return;
      } catch (error) {
        if (Date.now() > until || this.#children.some(({ exitCode }) => exitCode !== null)) throw error;
        await sleep(50);
      }
    }
  }

  #spawn(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): void {
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        this.#said.push(chunk.toString());
        if (this.#said.length > 200) this.#said.shift();
      });
    }
    this.#children.push(child);
  }

  async #get(url: string): Promise<string> {
    const sent = request(url, { ca: await readFile(this.caPath), agent: false }).end();
    const [answer] = await once(sent, 'response');
    return text(answer);
  }

  async #control(path: string, body: object): Promise<void> {
    const { status } = await fetch(`${this.#dnsControl}/${path}`, { method: 'POST', body: JSON.stringify(body) });
    if (status !== 200) throw new Error(`the DNS server answered ${path} with ${status}`);
  }
}

let givenLast = randomInt(PORTS_EACH);

/** For programs that have to be told theirs. */
export async function freePorts(count: number): Promise<number[]> {
  const first = FIRST_PORT + (Number(process.env.VITEST_POOL_ID ?? 0) % WORKERS) * PORTS_EACH;
  const ports: number[] = [];
  while (ports.length < count) {
    givenLast = (givenLast + 1) % PORTS_EACH;
    if (await isFree(first + givenLast)) ports.push(first + givenLast);
  }
  return ports;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1');
  const isFree = await once(server, 'listening').then(
    () => true,
    () => false,
  );
  if (isFree) await once(server.close(), 'close');
  return isFree;
}

/** For `localhost`, signed by itself. */
export async function writeServerCertificate(
  directory: string,
): Promise<{ readonly certificate: string; readonly privateKey: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const now = Date.now();
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: 'CN=localhost',
    notBefore: new Date(now - 3_600_000),
    notAfter: new Date(now + 86_400_000),
    keys: keys as webcrypto.CryptoKeyPair,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, undefined, true),
      new SubjectAlternativeNameExtension([{ type: 'dns', value: 'localhost' }]),
    ],
  });
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', (keys as webcrypto.CryptoKeyPair).privateKey));
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ format: 'pem', type: 'pkcs8' });
  const certificate = join(directory, 'cert.pem');
  const privateKey = join(directory, 'key.pem');
  await writeFile(certificate, cert.toString('pem'));
  await writeFile(privateKey, key, { mode: 0o600 });
  return { certificate, privateKey };
}
