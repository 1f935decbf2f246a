/**
 * What a visitor sees when the service itself does not answer: one small self-contained page, or the API's error body for programs. The code is also
 * in the `instavm-preview` header, so that nobody takes it for an answer of the service.
 */
import { errorBody, InstaVMError } from '@instavm/wire';
import { CODE_HEADER } from './headers.ts';
import { HTML_HEADERS, html } from './page-html.ts';
import { OTHER, WORDING, type Wording } from './wording.ts';

export type Page = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

const COMMON_HEADERS = {
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const;

export function statusOf(error: InstaVMError): number {
  return WORDING[error.code]?.status ?? error.status;
}

export function errorPage(error: InstaVMError, accept: string | undefined): Page {
  const {
    title,
    message = sentence(error.message),
    hint = error.hint,
    retrySeconds,
  }: Wording = WORDING[error.code] ?? OTHER;
  const status = statusOf(error);
  const headers = {
    ...COMMON_HEADERS,
    [CODE_HEADER]: error.code,
    ...(retrySeconds === undefined ? {} : { 'retry-after': String(retrySeconds) }),
  };
  if (!prefersHtml(accept)) {
    const body = `${JSON.stringify(programBody(error, message, hint))}\n`;
    return { status, headers: { ...headers, 'content-type': 'application/json; charset=utf-8' }, body };
  }
  const text = [message, hint];
  const body = html({ title, text, code: error.code, status, retrySeconds });
  return { status, headers: { ...headers, ...HTML_HEADERS }, body };
}

/** Without `details`, which may say more than strangers should know. */
function programBody(error: InstaVMError, message: string, hint: string): object {
  return errorBody(new InstaVMError(error.code, message, { hint }), crypto.randomUUID());
}

const sentence = (text: string): string =>
  `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;

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
    retrySeconds: undefined,
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
