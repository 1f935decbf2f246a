/** A person at the dashboard, in Chromium; whatever a page complains about meanwhile is a failure of ours. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { TestDaemon } from '@instavm/testing';
import type { Browser, BrowserContext, BrowserContextOptions, Page } from 'playwright-core';
import { expect } from 'vitest';
import { PATIENCE_MS } from '../preview/browser.ts';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

type Finding = { readonly id: string; readonly nodes: readonly { readonly html: string }[] };
type AxeResult = { readonly violations: readonly Finding[]; readonly passes: readonly unknown[] };

export class Visitor {
  readonly daemon: TestDaemon;
  readonly context: BrowserContext;
  readonly page: Page;
  /** Errors, refused loads, violations of the page's policy, and dialogs, which only an injected script would open. */
  readonly complaints: string[] = [];

  static async arrive(browser: Browser, daemon: TestDaemon, options: BrowserContextOptions = {}): Promise<Visitor> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    return new Visitor(daemon, context, await context.newPage());
  }

  private constructor(daemon: TestDaemon, context: BrowserContext, page: Page) {
    this.daemon = daemon;
    this.context = context;
    this.page = page;
    page.on('pageerror', (error) => this.complaints.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') this.complaints.push(message.text());
    });
    page.on('dialog', (dialog) => {
      this.complaints.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
  }

  async link(): Promise<string> {
    const headers = { 'x-api-key': this.daemon.apiKey };
    const answer = await fetch(`${this.daemon.baseUrl}/api/auth/links`, { method: 'POST', headers });
    return ((await answer.json()) as { url: string }).url;
  }

  async signIn(): Promise<void> {
    await this.page.goto(await this.link());
    await this.page.waitForURL('**/dashboard/sandboxes');
  }

  async open(path: string): Promise<void> {
    await this.page.goto(`${this.daemon.baseUrl}/dashboard/${path}`);
  }

  /** Of the page as it is now: no accessibility finding, and nothing wider than the window. @param isLive it follows something, and so never rests */
  async isAccessible(isLive = false): Promise<void> {
    if (isLive) await this.page.getByText('live', { exact: true }).waitFor();
    else await this.page.waitForLoadState('networkidle');
    // In a world of its own the policy of the page does not hold.
    const client = await this.context.newCDPSession(this.page);
    const { frameTree } = await client.send('Page.getFrameTree');
    const { executionContextId: contextId } = await client.send('Page.createIsolatedWorld', {
      frameId: frameTree.frame.id,
    });
    await client.send('Runtime.evaluate', { contextId, expression: AXE });
    const { result } = await client.send('Runtime.evaluate', {
      contextId,
      expression: 'axe.run().then(JSON.stringify)',
      awaitPromise: true,
      returnByValue: true,
    });
    await client.detach();
    const { violations, passes } = JSON.parse(String(result.value)) as AxeResult;
    expect(passes.length).toBeGreaterThan(5);
    expect(
      violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`),
      this.page.url(),
    ).toEqual([]);
    const width = 'document.documentElement.scrollWidth - innerWidth';
    expect(await this.page.evaluate(width), this.page.url()).toBeLessThanOrEqual(0);
  }

  async leave(): Promise<void> {
    await this.context.close();
    expect(this.complaints).toEqual([]);
  }
}
