/**
 * What a visitor sees when the service itself does not answer: one small self-contained page, or the API's error body for programs. The code is also
 * in the `instavm-preview` header, so that nobody takes it for an answer of the service.
 */
import { createHash } from 'node:crypto';
import { type ErrorCode, errorBody, InstaVMError } from '@instavm/wire';
import { CODE_HEADER } from './headers.ts';

export type Page = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

type Wording = {
  readonly title: string;
  readonly status?: number;
  /** Instead of the catalog's, where a visitor cannot do what that says. */
  readonly hint?: string;
  /** The page asks again by itself. */
  readonly refreshSeconds?: number;
};

/** Codes with a page of their own; a state that stands in the way is 503 here, since the address itself is right. */
const WORDING: Partial<Record<ErrorCode, Wording>> = {
  share_not_found: { title: 'There is no preview here', hint: 'Ask its owner for the current address.' },
  misdirected_request: { title: 'This address is not a preview' },
  port_not_listening: { title: 'Nothing is listening yet', refreshSeconds: 2 },
  service_failed: { title: 'The service broke off' },
  service_timeout: { title: 'The service does not answer' },
  sandbox_suspended: { title: 'The sandbox is asleep', status: 503 },
  invalid_state: { title: 'The sandbox is not running', status: 503, refreshSeconds: 5 },
  conflict: { title: 'The sandbox is changing', status: 503, refreshSeconds: 3 },
  capacity_unavailable: { title: 'The host is full', refreshSeconds: 10 },
  guest_unresponsive: {
    title: 'The sandbox is waking up',
    status: 503,
    hint: 'It was asleep, or is busy; this takes a moment.',
    refreshSeconds: 3,
  },
  guest_lost: { title: 'The sandbox ended' },
  shutting_down: { title: 'The server is restarting', refreshSeconds: 5 },
  lease_expired: { title: 'The sandbox is gone', status: 410 },
  sandbox_not_found: { title: 'The sandbox is gone', status: 410 },
  incarnation_not_found: { title: 'The sandbox is gone', status: 410 },
  rate_limited: { title: 'Too many visitors at once', refreshSeconds: 3 },
};

export function statusOf(error: InstaVMError): number {
  return WORDING[error.code]?.status ?? error.status;
}

export function errorPage(error: InstaVMError, accept: string | undefined): Page {
  const { title = 'This did not work', hint = error.hint, refreshSeconds } = WORDING[error.code] ?? {};
  const status = statusOf(error);
  const headers = {
    ...COMMON_HEADERS,
    [CODE_HEADER]: error.code,
    ...(refreshSeconds === undefined ? {} : { 'retry-after': String(refreshSeconds) }),
  };
  if (!prefersHtml(accept)) {
    const body = `${JSON.stringify(errorBody(error, crypto.randomUUID()))}\n`;
    return { status, headers: { ...headers, 'content-type': 'application/json; charset=utf-8' }, body };
  }
  const text = [error.message, hint];
  const body = html({ title, text, code: error.code, status, refreshSeconds });
  return { status, headers: { ...headers, ...HTML_HEADERS }, body };
}

/** Answers 200: a health check of a private share follows the redirect and finds the server well. */
export function privatePage(reason: 'private' | 'link_expired', accept: string | undefined): Page {
  const expired = reason === 'link_expired';
  const title = expired ? 'This link has expired' : 'This preview is private';
  const message = expired
    ? 'The link that you opened has ended or was taken back, or it was not made for this preview.'
    : 'Only people with a link from its owner can see it.';
  const hint = `Ask the owner for a ${expired ? 'new ' : ''}link. Programs send an API key, or the token of a link in the X-Instavm-Token header.`;
  const headers = { ...COMMON_HEADERS, [CODE_HEADER]: expired ? 'link_expired' : 'share_private' };
  if (!prefersHtml(accept)) {
    const {
      detail,
      code,
      retryable,
      hint: how,
    } = errorBody(new InstaVMError('unauthenticated', `${title}. ${message}`, { hint }), '');
    const body = `${JSON.stringify({ detail, code, retryable, hint: how })}\n`;
    return { status: 200, headers: { ...headers, 'content-type': 'application/json; charset=utf-8' }, body };
  }
  const body = html({
    title,
    text: [message, hint],
    code: headers[CODE_HEADER] ?? '',
    status: undefined,
    refreshSeconds: undefined,
  });
  return { status: 200, headers: { ...headers, ...HTML_HEADERS }, body };
}

export function redirect(location: string, code: string, headers: Readonly<Record<string, string>> = {}): Page {
  return { status: 302, headers: { ...COMMON_HEADERS, [CODE_HEADER]: code, location, ...headers }, body: '' };
}

/** HTML only to who names it, and does not name JSON with more weight: a bare wildcard comes from programs. */
export function prefersHtml(accept: string | undefined): boolean {
  const weightOf = (type: string): number => {
    for (const range of (accept ?? '').toLowerCase().split(',')) {
      const [name, ...parameters] = range.split(';').map((part) => part.trim());
      if (name !== type) continue;
      const weight = parameters.find((parameter) => parameter.startsWith('q='));
      return weight === undefined ? 1 : Number(weight.slice(2)) || 0;
    }
    return 0;
  };
  const html = weightOf('text/html');
  return html > 0 && html >= weightOf('application/json');
}

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

const COMMON_HEADERS = {
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const;

const HTML_HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'`,
} as const;

type Contents = {
  readonly title: string;
  readonly text: readonly string[];
  readonly code: string;
  readonly status: number | undefined;
  readonly refreshSeconds: number | undefined;
};

function html({ title, text: [message = '', hint = ''], code, status, refreshSeconds }: Contents): string {
  const refresh = refreshSeconds === undefined ? '' : `<meta http-equiv="refresh" content="${refreshSeconds}">`;
  const retry =
    refreshSeconds === undefined
      ? ''
      : '<p class="retry"><span class="dot"></span><span>This page tries again by itself.</span></p>';
  return `<!doctype html>
<html lang="en">
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
