/** The dashboard as people use it: Chromium, a daemon, and sandboxes in real microVMs. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Visitor } from './dashboard/visitor.ts';
import { browserIsMissing, openBrowser, PATIENCE_MS, type TestBrowser } from './preview/browser.ts';

const INSTAVM = resolve(import.meta.dirname, '../../apps/cli/bin/instavm');
/** A 1 × 1 PNG. */
const PIXEL = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);
const FIRST_LOAD_BYTES = 300_000;

/** An emulated guest on a busy machine takes its time. */
const eventually = <T>(look: () => T) => expect.poll(look, { timeout: PATIENCE_MS });

const missing = await browserIsMissing();
if (missing !== undefined && process.env.CI !== undefined) throw new Error(missing);
if (missing !== undefined) console.warn(`The dashboard is not opened in a browser: ${missing}`);

describe.skipIf(missing !== undefined)('in Chromium, the dashboard', () => {
  let daemon: TestDaemon;
  let client: InstaVM;
  let sandbox: Sandbox;
  let chromium: TestBrowser;
  let visitor: Visitor;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'qemu' });
    client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
    chromium = await openBrowser(join(daemon.dataDirectory, 'preview', 'preview.localhost.ca.pem'));
    sandbox = await client.sandboxes.create({ ttlSeconds: 1800, metadata: { name: 'research' } });
  });
  beforeEach(async () => {
    visitor = await Visitor.arrive(chromium.browser, daemon);
  });
  afterEach(() => visitor.leave());
  afterAll(async () => {
    await chromium?.close();
    client?.close();
    await daemon?.stop();
  });

  const openSandbox = async (view: string): Promise<void> => {
    await visitor.signIn();
    await visitor.open(`sandboxes/${sandbox.id}/${view}`);
  };
  /** Without the blanks that fill its lines. */
  const screen = async (): Promise<string> => {
    const lines = await visitor.page.locator('.xterm-rows > div').allTextContents();
    return lines.map((line) => line.trimEnd()).join('\n');
  };
  const shows = (text: string | RegExp) => eventually(screen).toMatch(text);
  /** Another one, beside those that are there. */
  async function openTerminal(): Promise<void> {
    await openSandbox('terminal');
    const { page } = visitor;
    const tabs = page.getByRole('tab');
    await page.getByRole('button', { name: 'New terminal' }).waitFor();
    const before = await tabs.count();
    await page.getByRole('button', { name: 'New terminal' }).click();
    await eventually(() => tabs.nth(before).getAttribute('aria-selected')).toBe('true');
    await page.locator('.screen-state.attached').waitFor({ state: 'attached' });
    await shows(/#$/m);
  }
  const type = (line: string) => visitor.page.keyboard.type(`${line}\n`);

  it('signs in by a link that works once and does not stay in the address bar', async () => {
    const { page } = visitor;
    const link = await visitor.link();
    await page.goto(link);
    await page.getByRole('link', { name: 'research' }).waitFor();
    expect(page.url()).toBe(`${daemon.baseUrl}/dashboard/sandboxes`);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.goto(link);
    await page.getByRole('alert').getByText('not valid').waitFor();
    // Of the link, and perhaps of a list that the page was asking for as it signed out.
    const complaints = visitor.complaints.splice(0);
    expect(complaints.length).toBeGreaterThan(0);
    expect(complaints.filter((complaint) => !complaint.includes('401'))).toEqual([]);
  });

  it('leads back to the page that was asked for, and to no other server', async () => {
    const { page } = visitor;
    await visitor.open('usage');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(new URL(page.url()).searchParams.get('next')).toBe('/usage');
    for (const next of ['https://evil.example/', '//evil.example/', '/\\evil.example', 'javascript:alert(1)']) {
      const hash = new URL(await visitor.link()).hash;
      await page.goto(`${daemon.baseUrl}/dashboard/sign-in?${new URLSearchParams({ next })}${hash}`);
      await page.getByRole('heading', { name: 'Sandboxes' }).waitFor();
      expect(new URL(page.url()).origin).toBe(daemon.baseUrl);
    }
    await page.goto(`${daemon.baseUrl}/dashboard/sign-in`);
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor();
    // A session that ends while a page is open.
    await visitor.context.clearCookies();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    expect(new URL(page.url()).searchParams.get('next')).toBe('/sandboxes');
    visitor.complaints.splice(0);
  });

  it('loads little, keeps it, and answers pages with a policy that allows no inline code', async () => {
    const { page } = visitor;
    const sizes: Promise<number>[] = [];
    page.on('requestfinished', (request) => {
      if (request.url().includes('/dashboard'))
        sizes.push(request.sizes().then(({ responseBodySize }) => responseBodySize));
    });
    const response = await page.goto(`${daemon.baseUrl}/dashboard/sign-in`);
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await page.waitForLoadState('networkidle');
    const loaded = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    expect(loaded).toBeGreaterThan(10_000);
    expect(loaded).toBeLessThan(FIRST_LOAD_BYTES);
    const policy = response?.headers()['content-security-policy'] ?? '';
    for (const rule of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"])
      expect(policy).toContain(rule);
    expect(policy).not.toContain('unsafe');
    const script = (await response?.text())?.match(/\/dashboard\/assets\/[^"]+\.js/)?.[0];
    const asset = await fetch(daemon.baseUrl + script, { headers: { 'accept-encoding': 'gzip' } });
    expect(asset.headers.get('cache-control')).toContain('immutable');
    expect(asset.headers.get('content-encoding')).toBe('gzip');
  });

  it('makes a sandbox, and shows what its state allows and why not', async () => {
    const { page } = visitor;
    await visitor.signIn();
    await page.getByRole('button', { name: 'New sandbox' }).click();
    await page.getByLabel('Name').fill('made by hand');
    await page.getByRole('button', { name: 'Make it' }).click();
    await page.getByRole('heading', { name: 'made by hand' }).waitFor();
    const row = page.getByRole('row', { name: /made by hand/ });
    await visitor.open('sandboxes');
    await row.getByText('running').waitFor();
    await row.getByRole('button', { name: 'Suspend' }).click();
    await row.getByText('suspended').waitFor();
    await row.getByRole('link').click();
    await page.getByRole('link', { name: 'Files' }).click();
    await eventually(() => page.title()).toBe('made by hand, Files · InstaVM');
    // Looking at it does not wake it.
    await page.getByRole('heading', { name: 'It is suspended' }).waitFor();
    await page.getByRole('button', { name: 'Resume it' }).click();
    await page.getByText('Nothing is in here').waitFor();
    await visitor.open('sandboxes');
    await row.getByText('running').waitFor();
    await row.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('button', { name: 'Delete it' }).click();
    await row.waitFor({ state: 'detached' });
    await page.getByLabel('Show ended ones').check();
    const suspend = row.getByRole('button', { name: 'Suspend' });
    expect(await suspend.getAttribute('aria-disabled')).toBe('true');
    expect(await suspend.getAttribute('title')).toContain('nothing of it was kept');
  });

  it('has a terminal that takes the size of the window and is the same shell after a reload', async () => {
    const { page } = visitor;
    await openTerminal();
    await type('MARK=only-this-shell; stty size');
    await shows(/^\d+ \d+$/m);
    const before = /^(\d+) (\d+)$/m.exec(await screen());
    await page.setViewportSize({ width: 900, height: 700 });
    const columns = async (): Promise<number> => {
      await type('clear; stty size');
      await page.waitForTimeout(500);
      return Number(/^\d+ (\d+)$/m.exec(await screen())?.[1] ?? Number.POSITIVE_INFINITY);
    };
    await eventually(columns).toBeLessThan(Number(before?.[2]));
    await page.reload();
    await page.locator('.screen-state.attached').waitFor({ state: 'attached' });
    await page.locator('.xterm').click();
    await type('echo "it is $MARK"');
    await shows('it is only-this-shell');
    await page.getByRole('button', { name: 'New terminal' }).click();
    await eventually(() => page.getByRole('tab').nth(1).getAttribute('aria-selected')).toBe('true');
    await page.getByRole('button', { name: 'End this one' }).click();
    await eventually(() => page.getByRole('tab').count()).toBe(1);
    await shows('it is only-this-shell');
  });

  it('shows, takes and gives files', async () => {
    const { page } = visitor;
    await sandbox.files.write('/workspace/notes.txt', 'as <b>text</b>');
    await sandbox.files.write('/workspace/pixel.png', PIXEL);
    await sandbox.run('ln -s notes.txt /workspace/link');
    await openSandbox('files');
    await page.getByRole('button', { name: 'notes.txt', exact: true }).click();
    await page.getByText('as <b>text</b>').waitFor();
    await page.keyboard.press('Escape');
    await page.locator('button:focus').getByText('notes.txt').waitFor();
    await page.getByRole('button', { name: 'link', exact: true }).click();
    await page.getByText('as <b>text</b>').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'pixel.png', exact: true }).click();
    const picture = page.getByRole('img', { name: 'pixel.png' });
    await picture.waitFor();
    const width = "document.querySelector('.picture').naturalWidth";
    await eventually(() => page.evaluate(width)).toBe(1);
    await page.getByRole('button', { name: 'Close' }).click();
    const contents = Buffer.from([0, 1, 2, 255, 254]);
    const upload = { name: 'upload.bin', mimeType: 'application/octet-stream', buffer: contents };
    await page.getByLabel('Files to upload').setInputFiles([upload]);
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download upload.bin' }).click();
    expect(await readFile(await (await download).path())).toEqual(contents);
    await page.getByRole('button', { name: 'Delete upload.bin' }).click();
    await page.getByRole('button', { name: 'Delete it' }).click();
    await page.getByRole('button', { name: 'upload.bin', exact: true }).waitFor({ state: 'detached' });
  });

  it('opens a port as a preview, privately too', async () => {
    const { page } = visitor;
    await sandbox.files.write('/srv/index.html', '<h1>Served from the sandbox</h1>');
    await openTerminal();
    await type('python3 -m http.server 8000 --directory /srv');
    await shows('Serving HTTP');
    await page.getByRole('link', { name: 'Ports' }).click();
    await page.getByRole('spinbutton', { name: 'Port' }).fill('8000');
    await page.getByRole('button', { name: 'Share' }).click();
    const row = page.getByRole('row', { name: /8000/ });
    await row.getByText('private').waitFor();
    const opened = page.waitForEvent('popup');
    await row.getByRole('button', { name: 'Open' }).click();
    const preview = await opened;
    await preview.getByRole('heading', { name: 'Served from the sandbox' }).waitFor();
    expect(await preview.evaluate('window.opener')).toBeNull();
    await row.getByRole('button', { name: 'Revoke' }).click();
    await row.waitFor({ state: 'detached' });
  });

  it('shows a denied connection as it happens, and its policy lifts it', async () => {
    const { page } = visitor;
    await openSandbox('egress');
    await page.getByText('live').waitFor();
    await sandbox.run('curl -sS --max-time 20 https://never-allowed.example; true');
    const denial = page.getByRole('listitem').filter({ hasText: 'never-allowed.example' });
    await denial.first().getByText('denied').waitFor();
    await page.getByLabel('Domains').fill('never-allowed.example');
    await page.getByRole('button', { name: 'Put in force' }).click();
    await page.getByText("The server's default").waitFor({ state: 'detached' });
    await page.getByLabel('Would it be allowed?').fill('never-allowed.example');
    await page.getByRole('button', { name: 'Ask' }).click();
    await page.getByRole('status').getByText('allowed', { exact: true }).waitFor();
    expect((await sandbox.getEgressPolicy()).allowedDomains).toEqual(['never-allowed.example']);
  });

  it('shows what is done as it is done, and all that is known of it', async () => {
    const { page } = visitor;
    await openSandbox('events');
    await page.getByText('live', { exact: true }).waitFor();
    await sandbox.run('curl -sS --max-time 20 https://denied-again.example; true');
    const denial = page.getByRole('row', { name: /egress\.denied.*denied-again\.example/ });
    await denial.first().waitFor();
    await page.getByLabel('About').selectOption('sandbox');
    await denial.first().waitFor({ state: 'detached' });
    await page
      .getByRole('row', { name: /sandbox\.created/ })
      .getByRole('button')
      .click();
    await page.getByRole('dialog').getByText('"memory_mb": 512').waitFor();
    await page.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('link', { name: 'Events', exact: true }).first().click();
    await page.getByRole('heading', { name: 'Events' }).waitFor();
    const { id } = await client.keys.create({ name: 'made meanwhile' });
    await page.getByRole('row', { name: /key\.created.*made meanwhile/ }).waitFor();
    await client.keys.revoke(id);
  });

  it('shows what the sandbox used before anyone looked', async () => {
    const { page } = visitor;
    await openSandbox('metrics');
    const cpu = page.getByRole('img', { name: /^CPU: \d+ %/ });
    await cpu.waitFor();
    await page.getByRole('img', { name: /^Network: .* out, .* in/ }).waitFor();
    await cpu.focus();
    await page.keyboard.press('ArrowLeft');
    await page.locator('.plot time, .plot figcaption .muted').first().waitFor();
  });

  it('makes a key, fills it in where it is needed, and revokes it at once', async () => {
    const { page } = visitor;
    await visitor.signIn();
    await page.getByRole('link', { name: 'API keys' }).click();
    await page.getByRole('button', { name: 'New key' }).click();
    await page.getByLabel('Name').fill('for the agent');
    await page.getByRole('button', { name: 'Make the key' }).click();
    const shown = page.getByRole('status').locator('pre');
    await shown.waitFor();
    const key = (await shown.textContent()) ?? '';
    const own = new InstaVM({ apiKey: key, baseUrl: daemon.baseUrl });
    expect((await own.sandboxes.list()).map(({ id }) => id)).toContain(sandbox.id);
    await page.getByRole('link', { name: 'Quickstart', exact: true }).click();
    await page.getByText(`export INSTAVM_API_KEY=${key}`).waitFor();
    await page.getByText(`export INSTAVM_BASE_URL=${daemon.baseUrl}`).waitFor();
    await page.getByRole('link', { name: 'API keys' }).click();
    await page.getByRole('row', { name: /for the agent/ }).waitFor();
    await page.getByRole('button', { name: 'Rotate for the agent' }).click();
    await page.getByLabel('The present secret stops working').selectOption('In an hour');
    await page.getByRole('button', { name: 'Rotate it' }).click();
    await shown.waitFor();
    expect(await shown.textContent()).not.toBe(key);
    expect((await own.sandboxes.list({ ended: false })).map(({ id }) => id)).toContain(sandbox.id);
    await page.getByRole('button', { name: 'Revoke for the agent' }).click();
    await page.getByRole('button', { name: 'Revoke it' }).click();
    await page.getByRole('row', { name: /for the agent/ }).waitFor({ state: 'detached' });
    await expect(own.sandboxes.list()).rejects.toMatchObject({ code: 'unauthenticated' });
    own.close();
  });

  it('shows names, titles and output of a sandbox as text, whatever is in them', async () => {
    const { page } = visitor;
    const attack = '<img src=x onerror=alert(document.domain)>';
    const hostile = await client.sandboxes.create({ ttlSeconds: 600, metadata: { name: attack } });
    await hostile.files.write(`/workspace/${attack.replaceAll('/', '')}.txt`, attack);
    await hostile.files.write(
      '/workspace/drawing.svg',
      `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`,
    );
    await visitor.signIn();
    await page.getByRole('link', { name: attack }).click();
    await page.getByRole('button', { name: 'New terminal' }).click();
    await page.locator('.screen-state.attached').waitFor({ state: 'attached' });
    await type(`printf '\\033]0;%s\\007%s\\n' '<script>alert(1)</script>' '${attack}'`);
    await page.getByRole('tab', { name: '<script>alert(1)</script>' }).waitFor();
    await shows(attack);
    await visitor.open(`sandboxes/${hostile.id}/files`);
    await page.getByRole('button', { name: `${attack}.txt`, exact: true }).click();
    await page.locator('pre').getByText(attack).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'drawing.svg', exact: true }).click();
    await page.locator('.picture').waitFor();
    await hostile.delete();
    expect(await page.locator('img[src="x"], main script').count()).toBe(0);
  });

  it('asks before a command line gets a key', async () => {
    const { page } = visitor;
    await visitor.signIn();
    const home = await mkdtemp(join(tmpdir(), 'instavm-home-'));
    const env = { PATH: process.env.PATH ?? '', HOME: home, INSTAVM_BASE_URL: daemon.baseUrl };
    const login = spawn(INSTAVM, ['login', '--no-browser'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const ended = once(login, 'close');
    let output = '';
    for (const stream of [login.stdout, login.stderr])
      stream.on('data', (chunk) => {
        output += chunk;
      });
    await eventually(() => output).toMatch(/cli-login\?pairing=\S+\n/);
    await page.goto(/http\S+cli-login\S+/.exec(output)?.[0] ?? '');
    await page.getByText('asks for an API key of').waitFor();
    await visitor.isAccessible();
    await page.getByRole('button', { name: 'Give it a key' }).click();
    await page.getByText('You are logged in').waitFor();
    const [code] = await ended;
    // Browsers ask for an icon, when the command has long gone.
    visitor.complaints.splice(0);
    expect([code, output]).toEqual([0, expect.stringContaining('Logged in as admin@localhost')]);
    await rm(home, { recursive: true });
  });

  it.each([
    ['on a desk, light', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' as const }],
    ['on a phone, dark', { viewport: { width: 390, height: 844 }, colorScheme: 'dark' as const }],
  ])('is accessible and fits the window %s', async (_, options) => {
    const guest = await Visitor.arrive(chromium.browser, daemon, options);
    await guest.open('sign-in');
    await guest.page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await guest.isAccessible();
    await guest.signIn();
    const views = ['terminal', 'files', 'ports', 'egress', 'snapshots', 'metrics', 'events'];
    const paths = [...views.map((view) => `sandboxes/${sandbox.id}/${view}`), 'sandboxes', 'snapshots', 'quickstart'];
    for (const path of [...paths, 'account', 'keys', 'usage', 'events']) {
      await guest.open(path);
      await guest.page.locator('h1').waitFor();
      await guest.page.locator('.loading').waitFor({ state: 'detached' });
      await guest.isAccessible(path.endsWith('egress') || path.endsWith('events'));
    }
    await guest.leave();
  });
});
