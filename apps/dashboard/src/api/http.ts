/** Requests to the server that this page came from. The browser adds the session's cookie; the header says that it was us who asked. */

export type Problem = { readonly code: string; readonly detail: string; readonly hint: string };

/** Any request that failed: refused by the server, under its code, or not answered (`connection_failed`). */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly code: string;
  readonly status: number;
  readonly hint: string;

  constructor(status: number, { code, detail, hint }: Problem) {
    super(detail);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

/** @param detail what 401 means in one place; the catalog's own words have all places in them */
export const refused = (error: Error, detail: string): Error =>
  error instanceof ApiError && error.status === 401 ? new ApiError(401, { code: error.code, detail, hint: '' }) : error;

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

type Options = {
  readonly query?: Query;
  readonly json?: unknown;
  readonly body?: Blob;
  readonly signal?: AbortSignal;
};

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** @throws ApiError; AbortError when `signal` is aborted */
export async function send(method: Method, path: string, options: Options = {}): Promise<Response> {
  const { query = {}, json, body, signal } = options;
  const headers: Record<string, string> = { 'x-instavm-csrf': '1' };
  if (json !== undefined) headers['content-type'] = 'application/json';
  else if (body !== undefined) headers['content-type'] = 'application/octet-stream';
  const payload = json === undefined ? body : JSON.stringify(json);
  const response = await fetch(path + queryString(query), {
    method,
    headers,
    credentials: 'same-origin',
    redirect: 'error',
    ...(payload === undefined ? {} : { body: payload }),
    ...(signal === undefined ? {} : { signal }),
  }).catch((error: Error) => {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, {
      code: 'connection_failed',
      detail: 'The server does not answer.',
      hint: 'Is it running? This page catches up by itself.',
    });
  });
  if (!response.ok) throw new ApiError(response.status, await problemOf(response));
  return response;
}

/** @throws ApiError */
export async function request<T>(method: Method, path: string, options: Options = {}): Promise<T> {
  return (await send(method, path, options)).json() as Promise<T>;
}

function queryString(query: Query): string {
  const pairs = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs as [string, string][])}`;
}

async function problemOf(response: Response): Promise<Problem> {
  const body = (await response.json().catch(() => ({}))) as Partial<Problem>;
  const { code = 'unexpected_answer', detail = `The server answered ${response.status}.`, hint = '' } = body;
  return { code, detail, hint };
}

/** Server-sent events as they come, until the stream ends or `signal` is aborted. @throws ApiError */
export async function* events<T>(path: string, query: Query, signal: AbortSignal): AsyncGenerator<T> {
  const { body } = await send('GET', path, { query, signal });
  if (body === null) return;
  let text = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const blocks = text.split('\n\n');
    text = blocks.pop() ?? '';
    for (const block of blocks) if (block.startsWith('data: ')) yield JSON.parse(block.slice(6)) as T;
  }
}
