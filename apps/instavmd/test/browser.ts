/** What a browser with our page does: keeps cookies, and sends the headers of its own. */
import type { TestDaemon } from '@instavm/testing';
import type { Answer } from './api.ts';

export const OWN = { 'x-instavm-csrf': '1' };

export class Browser {
  readonly #daemon: TestDaemon;
  readonly #cookies = new Map<string, string>();
  /** `Set-Cookie` of the last answer. */
  setCookies: readonly string[] = [];

  constructor(daemon: TestDaemon) {
    this.#daemon = daemon;
  }

  get cookie(): string {
    return Array.from(this.#cookies, ([name, value]) => `${name}=${value}`).join('; ');
  }

  plant(name: string, value: string): void {
    this.#cookies.set(name, value);
  }

  async ask(method: string, path: string, json?: unknown, headers: Record<string, string> = OWN): Promise<Answer> {
    const response = await fetch(this.#daemon.baseUrl + path, {
      method,
      redirect: 'manual',
      headers: {
        ...(this.#cookies.size > 0 ? { cookie: this.cookie } : {}),
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: json === undefined ? null : JSON.stringify(json),
    });
    this.setCookies = response.headers.getSetCookie();
    for (const each of this.setCookies) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(each) ?? [];
      if (/max-age=0/i.test(each)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    const text = await response.text();
    return {
      status: response.status,
      body: isJson && text !== '' ? JSON.parse(text) : text,
      headers: response.headers,
    };
  }

  /** As `instavm dashboard` does. */
  async signInByLink(): Promise<Answer> {
    return this.ask('POST', '/api/auth/link', { token: await linkToken(this.#daemon) });
  }
}

export async function linkToken(daemon: TestDaemon): Promise<string> {
  const headers = { 'x-api-key': daemon.apiKey };
  const answer = await fetch(`${daemon.baseUrl}/api/auth/links`, { method: 'POST', headers });
  const { url } = (await answer.json()) as { url: string };
  return new URLSearchParams(new URL(url).hash.slice(1)).get('link') ?? '';
}
