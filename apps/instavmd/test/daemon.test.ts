/** The daemon as a process: first start, signals, crashes, its directory and its page. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inheritedEnvironment, startTestDaemon } from '@instavm/testing';
import { afterEach, describe, expect, it } from 'vitest';
import { apiOf } from './api.ts';

const SPEC = fileURLToPath(new URL('../../../spec/openapi.json', import.meta.url));
const MAIN = fileURLToPath(new URL('../src/main.mjs', import.meta.url));

describe('the daemon', () => {
  const directories: string[] = [];
  const newDirectory = async (): Promise<string> => {
    const path = await mkdtemp(join(tmpdir(), 'instavm-daemon-test-'));
    directories.push(path);
    return path;
  };
  afterEach(async () => {
    for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true });
  });

  it('writes the administrator key once, for its owner only, and shows it nowhere', async () => {
    const dataDirectory = await newDirectory();
    const first = await startTestDaemon({ vmm: 'fake', dataDirectory });
    expect(first.apiKey).toMatch(/^instavm_sk_[\w-]{43}$/);
    expect((await stat(join(dataDirectory, 'admin.key'))).mode & 0o777).toBe(0o600);
    expect(first.log()).not.toContain(first.apiKey);
    await first.stop();
    const second = await startTestDaemon({ vmm: 'fake', dataDirectory });
    expect(second.apiKey).toBe(first.apiKey);
    expect((await apiOf(second).request('GET', '/v1/users/me')).status).toBe(200);
    await second.stop();
  });

  it('keeps others of the machine out of its directory, also when it was there before', async () => {
    const dataDirectory = await newDirectory();
    await chmod(dataDirectory, 0o755);
    const daemon = await startTestDaemon({ vmm: 'fake', dataDirectory });
    expect((await stat(dataDirectory)).mode & 0o777).toBe(0o700);
    await daemon.stop();
  });

  it('keeps the key out of its database', async () => {
    const dataDirectory = await newDirectory();
    const daemon = await startTestDaemon({ vmm: 'fake', dataDirectory });
    await daemon.stop();
    expect((await readFile(join(dataDirectory, 'instavm.db'))).includes(daemon.apiKey)).toBe(false);
  });

  it('lets no second one into its directory, also not in the same instant', async () => {
    const dataDirectory = await newDirectory();
    const starts = await Promise.allSettled([1, 2, 3].map(() => startTestDaemon({ vmm: 'fake', dataDirectory })));
    const running = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
    const refused = starts.flatMap((start) => (start.status === 'rejected' ? [String(start.reason)] : []));
    expect(running).toHaveLength(1);
    for (const reason of refused) expect(reason).toContain('uses the data directory');
    await running[0]?.stop();
  });

  it('takes over after a crash, and says of sandboxes that did not outlive it that they are lost', async () => {
    const dataDirectory = await newDirectory();
    const first = await startTestDaemon({ vmm: 'fake', dataDirectory });
    const id = await apiOf(first).createSession();
    await first.crash();
    const second = await startTestDaemon({ vmm: 'fake', dataDirectory });
    const api = apiOf(second);
    const { body } = await api.request('GET', `/v2/sandboxes/${id}`);
    expect(body).toMatchObject({ state: 'failed', state_reason: expect.stringContaining('daemon'), expires_at: null });
    expect((await api.execute(id, 'echo back')).body.stdout).toBe('back\n');
    await second.stop();
  });

  it('ends sandboxes, and answers what ran in them, on SIGTERM', async () => {
    const daemon = await startTestDaemon({ vmm: 'fake' });
    const api = apiOf(daemon);
    const id = await api.createSession();
    const marker = `daemon-${process.pid}-${Date.now()}`;
    const running = api.execute(id, `exec -a ${marker} sleep 60`);
    const probe = async () => (await api.execute(id, `pgrep -fc '^${marker}'`)).body.stdout.trim();
    await expect.poll(probe).toBe('1');
    await daemon.stop();
    const { status, body } = await running;
    expect([status, body.code]).toEqual([502, 'guest_lost']);
    expect(body.detail).toContain('the daemon stopped');
  });

  it('reports every problem of its configuration together', async () => {
    const env = { ...inheritedEnvironment(), INSTAVM_LISTEN: 'nowhere', INSTAVM_VMM: 'magic', INSTAVM_COLOR: 'red' };
    const child = spawn(process.execPath, ['--conditions=instavm-source', MAIN], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.on('data', (piece) => (text += piece));
    const [code] = await once(child, 'close');
    expect(code).toBe(78);
    for (const word of ['INSTAVM_LISTEN', 'host:port', 'INSTAVM_VMM', 'INSTAVM_COLOR', 'configuration.md'])
      expect(text).toContain(word);
  });

  it('names the port that is taken, and the setting that changes it', async () => {
    const first = await startTestDaemon({ vmm: 'fake' });
    const INSTAVM_LISTEN = new URL(first.baseUrl).host;
    const second = startTestDaemon({ vmm: 'fake', env: { INSTAVM_LISTEN } });
    await expect(second).rejects.toThrow(/EADDRINUSE[\s\S]*INSTAVM_LISTEN/);
    await first.stop();
  });

  describe('describes itself', () => {
    it('with the document that is in the repository', async () => {
      const daemon = await startTestDaemon({ vmm: 'fake' });
      const served = await (await fetch(`${daemon.baseUrl}/openapi.json`)).json();
      expect(served).toEqual(JSON.parse(await readFile(SPEC, 'utf8')));
      await daemon.stop();
    });

    it('on a page that loads nothing from elsewhere, sends nothing there, and is framed by nobody', async () => {
      const daemon = await startTestDaemon({ vmm: 'fake' });
      const page = await fetch(`${daemon.baseUrl}/docs`);
      const html = await page.text();
      expect(page.status).toBe(200);
      const policy = page.headers.get('content-security-policy')?.split('; ') ?? [];
      for (const directive of ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"])
        expect(policy).toContain(directive);
      const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '');
      expect(sources.length).toBeGreaterThan(0);
      for (const source of sources) {
        const url = new URL(source, page.url);
        expect(url.origin).toBe(daemon.baseUrl);
        const script = await fetch(url);
        expect([script.status, (await script.text()).length > 100_000]).toEqual([200, true]);
      }
      await daemon.stop();
    });

    it('as ready, with its backend', async () => {
      const daemon = await startTestDaemon({ vmm: 'fake' });
      expect(await (await fetch(`${daemon.baseUrl}/healthz`)).json()).toMatchObject({ status: 'ok', backend: 'fake' });
      await daemon.stop();
    });
  });
});
