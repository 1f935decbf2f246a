/** Previews as people see them: Chromium, which trusts the local certificate authority and no error, and programs in a real microVM. */
import { createRequire } from 'node:module';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { browserIsMissing, openBrowser, PATIENCE_MS, type TestBrowser } from './preview/browser.ts';
import { PreviewStage } from './preview/stage.ts';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
type AxeResult = { readonly violations: readonly { readonly id: string; readonly help: string }[] };
const VITE_APP = ['index.html', 'main.js', 'message.js'];

const missing = await browserIsMissing();
if (missing !== undefined && process.env.CI !== undefined) throw new Error(missing);
if (missing !== undefined) console.warn(`Previews are not opened in a browser: ${missing}`);

describe.skipIf(missing !== undefined)('in Chromium, a preview', () => {
  let stage: PreviewStage;
  let chromium: TestBrowser;
  let browser: Browser;
  const contexts: BrowserContext[] = [];

  beforeAll(async () => {
    stage = await PreviewStage.open();
    chromium = await openBrowser(stage.caPath);
    browser = chromium.browser;
    await stage.bring(...VITE_APP.map((name) => `vite-app/${name}`));
    await stage.start('cd vite-app && node ../node_modules/vite/bin/vite.js', 5173);
    await stage.listening(5173);
  });
  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.close();
  });
  afterAll(async () => {
    await chromium?.close();
    await stage?.close();
  });

  /** With cookies of its own. */
  async function visitor(): Promise<Page> {
    const context = await browser.newContext();
    context.setDefaultTimeout(PATIENCE_MS);
    contexts.push(context);
    return context.newPage();
  }
  const share = (port: number, isPublic = true) => stage.sandbox.shares.create({ port, isPublic });
  /** What a page of ours is. */
  const codeOf = (page: Page): Promise<string | null> => page.locator('footer code').textContent();

  it.each([
    ['that visitors use', false],
    ['localhost', true],
  ])('of a Vite server that is told the name %s shows an edit without a reload', async (name, rewriteHost) => {
    const { url } = await stage.sandbox.shares.create({ port: 5173, isPublic: true, rewriteHost });
    const page = await visitor();
    const connected = page.waitForEvent('console', (message) => message.text().includes('[vite] connected'));
    await page.goto(url);
    await page.getByText(/^as/).waitFor();
    await connected;
    await page.evaluate("window.marker = 'the same page'");
    const written = `as the agent wrote it for ${name}`;
    await stage.sandbox.files.write('/root/vite-app/message.js', `export const message = '${written}';\n`);
    await page.getByText(written).waitFor();
    expect(await page.evaluate('window.marker')).toBe('the same page');
    const protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    expect(await page.evaluate(protocol)).toBe('h2');
  });

  it('wakes its sandbox, and the Vite server in it goes on', async () => {
    const { url } = await share(5173);
    await stage.sandbox.suspend();
    const page = await visitor();
    await page.goto(url);
    await page.getByText('as the agent wrote it').waitFor();
    expect((await stage.sandbox.info()).state).toBe('running');
  });

  it('of a port where nothing listens says so, and becomes the service when something does', async () => {
    const { url } = await share(4000);
    const page = await visitor();
    const answer = await page.goto(`${url}/hello.txt?x=1`);
    expect([answer?.status(), await codeOf(page)]).toEqual([502, '502 port_not_listening']);
    await page.getByText('Nothing is listening yet').waitFor();
    await page.evaluate("window.marker = 'the same page'");
    for (let round = 0; round < 2; round += 1)
      await page.waitForResponse((tried) => tried.request().method() === 'HEAD');
    expect(await page.evaluate('window.marker')).toBe('the same page');
    await stage.sandbox.files.write('/root/late/hello.txt', 'here now', { parents: true });
    await stage.start('cd late && python3 -m http.server 4000 --bind 127.0.0.1', 4000);
    await page.getByText('here now').waitFor();
    expect(page.url()).toBe(`${url}/hello.txt?x=1`);
  });

  it('that is private opens by its link, for that visitor only', async () => {
    const { id, url } = await share(5173, false);
    const stranger = await visitor();
    const refused = await stranger.goto(url);
    expect([refused?.status(), await codeOf(stranger)]).toEqual([200, 'share_private']);
    expect(stranger.url()).toBe(`${url}/.instavm/private`);

    const guest = await visitor();
    await guest.goto((await stage.client.shares.link(id)).url);
    await guest.getByText('as the agent wrote it').waitFor();
    expect(guest.url()).toBe(`${url}/`);
    const [cookie] = await guest.context().cookies();
    expect(cookie).toMatchObject({ name: '__Host-instavm_preview', httpOnly: true, secure: true, sameSite: 'Lax' });
    expect(await guest.evaluate('document.cookie')).toBe('');
    await guest.reload();
    await guest.getByText('as the agent wrote it').waitFor();

    await stranger.goto(`${url}/?instavm_token=made-up`);
    expect(await codeOf(stranger)).toBe('link_expired');
    await share(5173, true);
  });

  it('that is revoked is a page that says so', async () => {
    const { id, url } = await share(4001);
    await stage.client.shares.revoke(id);
    const page = await visitor();
    const answer = await page.goto(url);
    expect([answer?.status(), await codeOf(page)]).toEqual([404, '404 share_not_found']);
  });

  it('has pages without a fault in accessibility, by day and by night, on a desk and on a phone', async () => {
    const silent = await share(4002);
    const gone = await share(4003);
    await stage.client.shares.revoke(gone.id);
    const closed = await share(4004, false);
    const pages = [silent.url, gone.url, closed.url, `${closed.url}/?instavm_token=old`];
    const sights = [
      { colorScheme: 'light', viewport: { width: 390, height: 844 } },
      { colorScheme: 'dark', viewport: { width: 1280, height: 800 } },
    ] as const;
    for (const sight of sights) {
      // Their policy lets no script in that is not theirs, axe neither.
      const context = await browser.newContext({ ...sight, bypassCSP: true });
      context.setDefaultTimeout(PATIENCE_MS);
      contexts.push(context);
      const page = await context.newPage();
      for (const url of pages) {
        await page.goto(url);
        await page.addScriptTag({ path: AXE });
        const { violations } = await page.evaluate<AxeResult>('axe.run()');
        const scrolls = await page.evaluate('document.documentElement.scrollWidth > innerWidth');
        const found = violations.map(({ id, help }) => `${id}: ${help}`);
        expect({ url, sight, scrolls, found }).toEqual({ url, sight, scrolls: false, found: [] });
      }
    }
  });

  it('is not opened by a browser that was not given its certificate authority', async () => {
    const { url } = await share(5173);
    const other = await openBrowser(undefined);
    const page = await other.browser.newPage();
    await expect(page.goto(url)).rejects.toThrow('ERR_CERT_AUTHORITY_INVALID');
    await other.close();
  });
});
