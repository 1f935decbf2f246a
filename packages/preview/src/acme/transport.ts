/**
 * The requests of acme-client, bounded: https only, one trust store per authority, no redirects, so many bytes and so much time. acme-client's own
 * transport takes answers of any size, waits for as long as the server says, and hides why a connection failed; it has one hook, its axios
 * instance, which all of a process share. Whose request it is is known from the asynchronous context.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { axios } from 'acme-client';

const MAX_ANSWER_BYTES = 256 * 1024;
const ANSWER_TIMEOUT_MS = 30_000;
/** Longer waits are not for one order. */
const MAX_RETRY_AFTER_S = 24 * 3_600;

/** An ACME problem document (RFC 8555 §6.7), or as much as there is of one. */
export type Problem = { readonly type: string; readonly detail: string };

export type Conversation = {
  readonly signal: AbortSignal;
  /** PEM, instead of the well-known authorities. */
  readonly ca: string | undefined;
  /** Of the last answer. */
  problem?: Problem | undefined;
  retryAfterMs?: number | undefined;
};

const conversations = new AsyncLocalStorage<Conversation>();

/** Runs calls of acme-client; what they ask is asked on behalf of the conversation. */
export const converse = <T>(conversation: Conversation, work: () => Promise<T>): Promise<T> =>
  conversations.run(conversation, work);

/** What acme-client asks of axios. */
type Asked = { url?: string | undefined; method?: string | undefined; data?: unknown; headers: object };

axios.defaults.adapter = async (config) => {
  const conversation = conversations.getStore();
  if (!conversation) throw new Error('an ACME request outside of a conversation');
  conversation.problem = undefined;
  conversation.retryAfterMs = undefined;
  const { status, headers, data } = await answerTo(config as Asked, conversation);
  conversation.problem = status >= 400 ? problemIn(data) : undefined;
  conversation.retryAfterMs = retryAfterMs(headers['retry-after']);
  return { status, statusText: '', headers: headers as Record<string, string>, data, config };
};

async function answerTo({ url, method, data, headers }: Asked, { signal, ca }: Conversation) {
  const target = URL.parse(url ?? '');
  if (target?.protocol !== 'https:') throw new Error(`the address ${url} is not https`);
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const sent = request(
    target,
    {
      method: method?.toUpperCase() ?? 'GET',
      headers: { ...headers, 'user-agent': 'instavm acme-client' },
      signal: AbortSignal.any([signal, timeout]),
      ...(ca === undefined ? {} : { ca }),
    },
    resolve,
  );
  sent.once('error', reject).end(typeof data === 'string' ? data : undefined);
  try {
    const answer = await promise;
    return { status: answer.statusCode ?? 0, headers: answer.headers, data: await textOf(answer) };
  } catch (error) {
    signal.throwIfAborted();
    const why = timeout.aborted ? `no answer within ${ANSWER_TIMEOUT_MS / 1_000} s` : reasonOf(error);
    throw new Error(`${target.host} cannot be asked: ${why}`, { cause: error });
  } finally {
    sent.destroy();
  }
}

async function textOf(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer) {
    size += (chunk as Buffer).length;
    if (size > MAX_ANSWER_BYTES) throw new Error(`its answer is larger than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Node's error for a name with several addresses has an empty message. */
const reasonOf = (error: unknown): string =>
  error instanceof Error ? error.message || String((error as NodeJS.ErrnoException).code) : String(error);

function problemIn(body: string): Problem | undefined {
  try {
    return asProblem(JSON.parse(body));
  } catch {
    return undefined; // a page of some proxy
  }
}

/** @returns undefined when it says nothing */
export function asProblem(value: unknown): Problem | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { type, detail } = value as Record<string, unknown>;
  if (typeof detail !== 'string' && typeof type !== 'string') return undefined;
  return {
    type: typeof type === 'string' ? plain(type, 100) : 'about:blank',
    detail: typeof detail === 'string' ? plain(detail, 500) : 'no detail',
  };
}

/** Text of others in a message of ours. */
export const plain = (text: string, maxChars: number): string => {
  const printable = text.replace(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ').trim();
  return printable.length > maxChars ? `${printable.slice(0, maxChars)}…` : printable;
};

function retryAfterMs(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined;
  const seconds = /^\d{1,9}$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1_000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), MAX_RETRY_AFTER_S) * 1_000 : undefined;
}
