/** Logging in, and what the other commands make of it. The browser's part is played over HTTP. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const INSTAVM = resolve(fileURLToPath(import.meta.url), '../../bin/instavm');
const OWN = { 'x-instavm-csrf': '1', 'content-type': 'application/json' };

describe('the command line and its login', () => {
  let daemon: TestDaemon;
  let home: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    home = await mkdtemp(join(tmpdir(), 'instavm-home-'));
  });
  afterAll(async () => {
    await daemon.stop();
    await rm(home, { recursive: true, force: true });
  });

  function start(args: string[], changes: Record<string, string> = {}) {
    const env = { PATH: process.env.PATH ?? '', HOME: home, INSTAVM_DATA_DIR: join(home, 'none'), ...changes };
    const child = spawn(INSTAVM, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const output = { text: '' };
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => {
        output.text += chunk;
      });
    return { child, output };
  }
  async function run(args: string[], changes: Record<string, string> = {}) {
    const { child, output } = start(args, changes);
    return { code: await ended(child), text: output.text };
  }
  const ended = async (child: ChildProcess): Promise<number> => (await once(child, 'close'))[0] as number;
  const server = () => ({ INSTAVM_BASE_URL: daemon.baseUrl });
  const administrator = () => ({ ...server(), INSTAVM_API_KEY: daemon.apiKey });

  /** Signs in by what `instavm dashboard` prints, and answers what `instavm login` prints. @returns where the browser is sent */
  async function answer(loginUrl: string, approve: boolean): Promise<string> {
    const { text } = await run(['dashboard', '--no-browser'], administrator());
    const token = new URLSearchParams(new URL(text.trim()).hash.slice(1)).get('link');
    const signedIn = await fetch(`${daemon.baseUrl}/api/auth/link`, {
      method: 'POST',
      headers: OWN,
      body: JSON.stringify({ token }),
    });
    const cookie = signedIn.headers.getSetCookie()[0]?.split(';')[0] ?? '';
    const path = `/api/cli-auth/pairings/${new URL(loginUrl).searchParams.get('pairing')}`;
    const headers = { ...OWN, cookie };
    const said = await fetch(daemon.baseUrl + path, { method: 'POST', headers, body: JSON.stringify({ approve }) });
    return ((await said.json()) as { redirect_url: string }).redirect_url;
  }
  async function login(approve: boolean, disturb = async (_callback: URL) => {}) {
    const { child, output } = start(['login', '--no-browser'], server());
    await expect.poll(() => output.text).toMatch(/cli-login\?pairing=\S+\n/);
    const redirect = await answer(/http\S+cli-login\S+/.exec(output.text)?.[0] ?? '', approve);
    await disturb(new URL(redirect));
    const page = await fetch(redirect);
    return { code: await ended(child), text: output.text, pageStatus: page.status };
  }

  it('keeps nothing when the person says no', async () => {
    const refused = await login(false);
    expect([refused.code, refused.pageStatus]).toEqual([1, 400]);
    expect(refused.text).toContain('refused');
    await expect(stat(join(home, '.instavm', 'config.json'))).rejects.toThrow('ENOENT');
  });

  it('keeps a key for its user alone, which the other commands take, and knows that it is logged in', async () => {
    const path = join(home, '.instavm', 'config.json');
    const done = await login(true, async (callback) => {
      // Another program of this machine calls first: it knows no state.
      const forged = new URL(callback);
      forged.searchParams.set('state', 'guessed');
      expect((await fetch(forged)).status).toBe(400);
    });
    expect([done.code, done.pageStatus], done.text).toEqual([0, 200]);
    expect(done.text).toContain('admin@localhost');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(home, '.instavm'))).mode & 0o777).toBe(0o700);
    const profile = JSON.parse(await readFile(path, 'utf8')).profiles.default;
    expect(profile).toMatchObject({ auth: { type: 'api_key' }, base_url: daemon.baseUrl });
    expect(done.text).not.toContain(profile.auth.api_key);

    expect((await run(['whoami'])).text).toContain(`<admin@localhost> at ${daemon.baseUrl}`);
    expect((await run(['ls'])).code).toBe(0);
    const again = await run(['login', '--no-browser']);
    expect([again.code, again.text.includes('Already logged in')]).toEqual([0, true]);
    expect((await run(['whoami'], { INSTAVM_API_KEY: 'wrong' })).code).toBe(4);
  });

  it('says what is wrong with its file', async () => {
    await writeFile(join(home, '.instavm', 'config.json'), '{');
    const { code, text } = await run(['whoami']);
    expect([code, text.includes('config.json is not a JSON object')]).toEqual([1, true]);
  });
});
