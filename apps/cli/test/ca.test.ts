/** Trust in previews by the command line: what is kept, what it is good for, and what is refused. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { checked } from '../src/authority.ts';
import { shellLine, systemStore } from '../src/trust-stores.ts';
import { PATIENCE } from './command-line.ts';

const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../bin/instavm');
const run = promisify(execFile);
const DOMAIN = 'preview.localhost';
const hasCertutil = isHere('certutil');

function isHere(program: string): boolean {
  try {
    execFileSync(program, ['--help'], { stdio: 'ignore' });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
}

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'instavm-home-'));
});
afterAll(() => rm(home, { recursive: true }));

describe('instavm ca', PATIENCE, () => {
  let daemon: TestDaemon;
  let url: URL;
  let env: Record<string, string>;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
    const sandbox = await client.sandboxes.create();
    url = new URL((await sandbox.shares.create({ port: 9, isPublic: true })).url);
    client.close();
    env = { PATH: process.env.PATH ?? '', HOME: home };
    Object.assign(env, { INSTAVM_BASE_URL: daemon.baseUrl, INSTAVM_API_KEY: daemon.apiKey });
  });
  afterAll(() => daemon.stop());
  const instavm = (...args: string[]) => run(INSTAVM, args, { env });

  it('path keeps the authority as a file, the same one each time', async () => {
    const { stdout } = await instavm('ca', 'path');
    const path = stdout.trimEnd();
    expect(path).toBe(join(home, '.config/instavm', `${DOMAIN}.ca.pem`));
    const own = await readFile(join(daemon.dataDirectory, 'preview', `${DOMAIN}.ca.pem`), 'utf8');
    expect(await readFile(path, 'utf8')).toBe(own);
    expect((await stat(path)).mode & 0o777).toBe(0o644);
    const json = JSON.parse((await instavm('ca', 'path', '--json')).stdout);
    expect(json).toMatchObject({
      domain: DOMAIN,
      path,
      sha256: expect.stringMatching(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/),
    });
    expect((await readFile(json.bundlePath, 'utf8')).match(/BEGIN CERTIFICATE/g)?.length).toBeGreaterThan(50);
  });

  it('path --print-env makes Node and Python trust previews, and go on trusting what they did', async () => {
    const node = `require('node:tls').connect({ host: '127.0.0.1', port: ${url.port}, servername: '${url.hostname}' }, function () {
      console.log(this.authorized, require('node:tls').getCACertificates('default').length > 50); this.destroy(); })`;
    const python = `import socket, ssl
context = ssl.create_default_context()
context.wrap_socket(socket.create_connection(("127.0.0.1", ${url.port})), server_hostname="${url.hostname}").close()
print(len(context.get_ca_certs()) > 50)`;
    const script = `eval "$(${INSTAVM} ca path --print-env)" && "$0" -e "$1" && python3 -c "$2"`;
    const { stdout } = await run('sh', ['-c', script, process.execPath, node, python], { env });
    expect(stdout).toBe('true true\nTrue\n');
    const distrusted = await run('python3', ['-c', python], { env }).catch((error: { stderr: string }) => error.stderr);
    expect(distrusted).toContain('CERTIFICATE_VERIFY_FAILED');
  });

  it('install makes the browsers of the user trust it, once, and says how little that is', async ({ skip }) => {
    skip(!hasCertutil, 'there is no certutil here');
    const database = join(home, '.pki/nssdb');
    for (let round = 0; round < 2; round++) {
      const { stdout } = await instavm('ca', 'install', '--no-system');
      expect(stdout).toMatch(new RegExp(`under ${DOMAIN} and for nothing else[\\s\\S]*Trusted in ${database};`));
    }
    const listed = await run('certutil', ['-L', '-d', `sql:${database}`]);
    expect(listed.stdout.match(/InstaVM local previews \(preview\.localhost\) +C,,/g)).toHaveLength(1);
    const json = JSON.parse((await instavm('ca', 'install', '--no-system', '--json')).stdout);
    expect(json).toMatchObject({ domain: DOMAIN, browsers: [database], system: null, command: null });
  });
});

describe("the system's store", () => {
  const onLinux = (there: string) => systemStore('/c/ca.pem', DOMAIN, 'linux', async (path) => path === there);

  it('is that of the system, and written by its own program', async () => {
    const debian = await onLinux('/usr/local/share/ca-certificates');
    expect(shellLine(debian?.commands ?? [], 'sudo')).toBe(
      'sudo install -m 644 /c/ca.pem /usr/local/share/ca-certificates/instavm-preview.localhost.crt && sudo update-ca-certificates',
    );
    const fedora = await onLinux('/etc/pki/ca-trust/source/anchors');
    expect(shellLine(fedora?.commands ?? [], 'sudo')).toBe(
      'sudo install -m 644 /c/ca.pem /etc/pki/ca-trust/source/anchors/instavm-preview.localhost.pem && sudo update-ca-trust',
    );
    const mac = await systemStore("/a b/it's.pem", DOMAIN, 'darwin');
    expect(shellLine(mac?.commands ?? [], 'sudo')).toBe(
      `sudo security add-trusted-cert -d -r trustRoot -p ssl -k /Library/Keychains/System.keychain '/a b/it'\\''s.pem'`,
    );
    expect(await onLinux('/elsewhere')).toBeUndefined();
  });
});

describe('an authority is refused', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(home, 'made-'));
  });

  async function authority(...extensions: string[]): Promise<string> {
    const config = join(directory, 'config');
    await writeFile(config, `[req]\ndistinguished_name=dn\nx509_extensions=x\n[dn]\n[x]\n${extensions.join('\n')}\n`);
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/O=x'];
    const { stdout } = await run('openssl', [...made, '-keyout', '/dev/null', '-config', config, '-days', '1']);
    return stdout;
  }
  const CA = 'basicConstraints=critical,CA:true';
  const addresses = 'excluded;IP:0.0.0.0/0.0.0.0,excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0';

  it.each([
    ['when it is none', 'it is none', 'basicConstraints=critical,CA:false'],
    ['without a constraint', 'any name', CA],
    ['when clients may ignore the constraint', 'any name', CA, `nameConstraints=permitted;DNS:${DOMAIN},${addresses}`],
    ['for another domain', 'more than', CA, `nameConstraints=critical,permitted;DNS:bank.test,${addresses}`],
    [
      'for one more',
      'more than',
      CA,
      `nameConstraints=critical,permitted;DNS:${DOMAIN},permitted;DNS:a.test,${addresses}`,
    ],
    [
      'for mail',
      'more than',
      CA,
      `nameConstraints=critical,permitted;DNS:${DOMAIN},permitted;email:a.test,${addresses}`,
    ],
    ['for addresses', 'addresses', CA, `nameConstraints=critical,permitted;DNS:${DOMAIN},excluded;IP:0.0.0.0/0.0.0.0`],
  ])('%s', async (_, message, ...extensions) => {
    const certificate = await authority(...extensions);
    expect(() => checked(DOMAIN, certificate)).toThrow(message);
  });

  it('for a name that is none, and when it is no certificate', async () => {
    const good = await authority(CA, `nameConstraints=critical,permitted;DNS:${DOMAIN},${addresses}`);
    expect(checked(DOMAIN, `${good}\n${good}`).pem).toBe(good);
    for (const domain of ['../x', 'localhost', 'a..b', '']) expect(() => checked(domain, good)).toThrow('no host name');
    expect(() => checked(DOMAIN, 'nonsense')).toThrow('it is no certificate');
  });
});
