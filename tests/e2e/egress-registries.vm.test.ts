/**
 * Package managers in a guest, through the registries that this machine's own clients are configured with. Nothing is allowed but those hosts; the
 * guest is given the machine's certificate authorities, as a site with a mirror of its own would.
 */
import { execFile } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { PUBLIC_REGISTRIES, specialRange } from '@instavm/egress';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';
/** Where files of PyPI are, when its index is the public one. */
const PYPI_FILES = 'files.pythonhosted.org';

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
let npmRegistry: URL;
let pipIndex: URL;

beforeAll(async () => {
  npmRegistry = new URL((await run('npm', ['config', 'get', 'registry'])).stdout.trim());
  pipIndex = new URL(await pipIndexUrl());
  const hosts = [...new Set([npmRegistry.hostname, pipIndex.hostname, PYPI_FILES])];
  const addresses = (await Promise.all(hosts.map((host) => lookup(host, { all: true })))).flat();
  const site = addresses.filter(({ address }) => specialRange(address) !== undefined).map(({ address }) => address);
  daemon = await startTestDaemon({
    vmm: 'qemu',
    env: {
      INSTAVM_EGRESS_DEFAULT: 'packages',
      INSTAVM_EGRESS_REGISTRIES: [...PUBLIC_REGISTRIES, ...hosts].join(' '),
      INSTAVM_EGRESS_SITE_CIDRS: site.join(' '),
      ...(process.env.HTTP_PROXY === undefined ? {} : { INSTAVM_EGRESS_PROXY: process.env.HTTP_PROXY }),
    },
  });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create({
    ttlSeconds: 1200,
    env: {
      PIP_INDEX_URL: pipIndex.href,
      PIP_CERT: CA_BUNDLE,
      PIP_DISABLE_PIP_VERSION_CHECK: '1',
      npm_config_registry: npmRegistry.href,
      npm_config_update_notifier: 'false',
      NODE_EXTRA_CA_CERTS: CA_BUNDLE,
    },
  });
  await sandbox.files.write(CA_BUNDLE, await readFile(CA_BUNDLE));
});
afterAll(async () => {
  client?.close();
  await daemon?.stop();
});

/** What pip on this machine would use. */
async function pipIndexUrl(): Promise<string> {
  if (process.env.PIP_INDEX_URL !== undefined) return process.env.PIP_INDEX_URL;
  const { stdout } = await run('python3', ['-m', 'pip', 'config', 'list']).catch(() => ({ stdout: '' }));
  return /index-url='([^']+)'/.exec(stdout)?.[1] ?? 'https://pypi.org/simple/';
}

describe('with the default policy', () => {
  it('pip installs a package', { timeout: 600_000 }, async () => {
    const script =
      'pip install --quiet --target /root/packages --no-deps six && PYTHONPATH=/root/packages python3 -c "import six; print(six.__name__)"';
    const { exitCode, stdoutText, stderrText } = await sandbox.run(script, { timeoutMs: 500_000 });
    expect([exitCode, stdoutText], stderrText).toEqual([0, 'six\n']);
  });

  it('npm installs a package', { timeout: 600_000 }, async () => {
    const script =
      'mkdir -p /root/app && cd /root/app && npm install --no-audit --no-fund --silent is-number && node -p "require(\'is-number\')(7)"';
    const { exitCode, stdoutText, stderrText } = await sandbox.run(script, { timeoutMs: 500_000 });
    expect([exitCode, stdoutText.split('\n').at(-2)], stderrText).toEqual([0, 'true']);
  });

  it('and nothing else is reached', async () => {
    const { exitCode } = await sandbox.run('curl -sS -m 10 https://example.com/', { timeoutMs: 20_000 });
    expect(exitCode).toBe(7);
  });
});
