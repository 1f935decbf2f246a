/** The one page that everything we say to browsers looks like: self-contained, readable by day and by night, on phones, and aloud. */
import { createHash } from 'node:crypto';
import { CODE_HEADER } from './headers.ts';

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fbfbfc; --card: #fff; --line: #e3e4e8; --accent: #3b6cf6; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a5a9b1; --paper: #111214; --card: #191b1e; --line: #2b2e33; --accent: #7b9cff; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center; padding: 24px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { width: 100%; max-width: 33rem; padding: 32px; background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow-wrap: anywhere; }
h1 { margin: 0 0 12px; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em; text-wrap: balance; }
p { margin: 0 0 12px; }
.soft { color: var(--soft); }
.retry { display: flex; align-items: center; gap: 10px; margin-top: 20px; color: var(--soft); }
.dot { flex: none; width: 9px; height: 9px; border-radius: 50%; background: var(--accent); animation: pulse 1.4s ease-in-out infinite; }
footer { margin-top: 24px; padding-top: 14px; border-top: 1px solid var(--line); color: var(--soft); font-size: .8125rem; display: flex; gap: 6px 16px; flex-wrap: wrap; align-items: baseline; justify-content: space-between; }
code { font: .8125rem ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@keyframes pulse { 50% { opacity: .25; } }
@media (prefers-reduced-motion: reduce) { .dot { animation: none; } }
@media (max-width: 30rem) { body { padding: 16px; } main { padding: 24px 20px; } }
`;

/**
 * Asks again, and loads the page anew only when there is another answer: who reads it, or has it read, is not interrupted. Not while nobody looks, which
 * would keep the sandbox awake.
 */
const RETRY = `
const { code, retrySeconds } = document.documentElement.dataset;
const ask = async () => {
  const answer = document.hidden ? undefined
    : await fetch(location.href, { method: 'HEAD', redirect: 'manual', cache: 'no-store' }).catch(() => undefined);
  if (answer === undefined || answer.headers.get('${CODE_HEADER}') === code) setTimeout(ask, retrySeconds * 1000);
  else if (location.hash === '') location.replace(location.href);
  else location.reload();
};
setTimeout(ask, retrySeconds * 1000);
`;
const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

export const HTML_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src ${hashOf(STYLE)}; script-src ${hashOf(RETRY)}; connect-src 'self'; base-uri 'none'; form-action 'none'`,
} as const;

export type Contents = {
  readonly title: string;
  readonly text: readonly string[];
  readonly code: string;
  readonly status: number | undefined;
  readonly retrySeconds: number | undefined;
};

export function html({ title, text: [message = '', hint = ''], code, status, retrySeconds }: Contents): string {
  const retries = retrySeconds !== undefined;
  const retry = retries
    ? `<p class="retry"><span class="dot"></span><span>This page tries again by itself.</span></p><script>${RETRY}</script>`
    : '';
  const data = retries ? ` data-code="${escaped(code)}" data-retry-seconds="${retrySeconds}"` : '';
  const refresh = retries ? `<noscript><meta http-equiv="refresh" content="${retrySeconds}"></noscript>` : '';
  return `<!doctype html>
<html lang="en"${data}>
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">${refresh}
<title>${escaped(title)}</title><style>${STYLE}</style></head>
<body><main><h1>${escaped(title)}</h1><p>${escaped(message)}</p><p class="soft">${escaped(hint)}</p>${retry}
<footer><span>InstaVM preview</span><code>${status === undefined ? '' : `${status} `}${escaped(code)}</code></footer></main></body>
</html>
`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '');
