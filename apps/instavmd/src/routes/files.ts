/** Files and tar streams of a sandbox (`/v2`), never held whole in memory. */
import { Readable } from 'node:stream';
import { WatchEvent_Kind as WatchKind } from '@instavm/agent-client';
import type { AccountId } from '@instavm/core';
import {
  FileInfo,
  InstaVMError,
  ListQuery,
  MkdirRequest,
  PackQuery,
  ReadFileQuery,
  RemoveRequest,
  RenameRequest,
  StatQuery,
  UnpackQuery,
  UnpackResponse,
  WatchQuery,
  WriteFileQuery,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { askGuest, guestError } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { fileInfoView, packTar, readFile, targetOf, unpackTar, writeFile } from '../guest/transfer.ts';
import { ownerOf } from './views.ts';

const Params = z.object({ id: z.string() });
/** Longer than any single file operation of a healthy guest, removal of a large tree included. */
const OPERATION_DEADLINE_MS = 300_000;
/** An answer this long would be a document nobody reads; page through subdirectories instead. */
const MAX_LISTED = 100_000;
const deadline = { timeoutMs: OPERATION_DEADLINE_MS };

export const fileRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    // Request bodies of this plug-in reach the handler as streams, whatever their type; JSON keeps its parser.
    app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
    const guestOf = async (accountId: AccountId, id: string): Promise<Guest> =>
      (await ownerOf(services, accountId, id)).guest();
    const base = '/v2/sandboxes/:id';

    app.get(
      `${base}/files`,
      { schema: { params: Params, querystring: ReadFileQuery } },
      async ({ account, params, query }, reply) => {
        const guest = await guestOf(account.id, params.id);
        const { info, contents } = await readFile(guest, { target: query, offset: query.offset, length: query.length });
        const { size_bytes, mode } = fileInfoView(info);
        reply.headers({
          'content-type': 'application/octet-stream',
          'x-instavm-size': size_bytes,
          'x-instavm-mode': mode,
        });
        return reply.send(Readable.from(contents, { objectMode: false, highWaterMark: 512 * 1024 }));
      },
    );

    const written = { params: Params, querystring: WriteFileQuery, response: { 200: FileInfo } };
    app.put(`${base}/files`, { schema: written }, async ({ account, params, query, body }) => {
      const guest = await guestOf(account.id, params.id);
      const { mode, parents, owner, group, append } = query;
      return fileInfoView(
        await writeFile(guest, { target: query, mode, parents, owner, group, append }, bodyStream(body)),
      );
    });

    const described = { params: Params, querystring: StatQuery, response: { 200: FileInfo } };
    app.get(`${base}/files/stat`, { schema: described }, async ({ account, params, query }) => {
      const guest = await guestOf(account.id, params.id);
      const request = { target: targetOf(query), follow: query.follow ?? true };
      return fileInfoView(await askGuest(() => guest.agent.files.stat(request, deadline)));
    });

    const listed = {
      params: Params,
      querystring: ListQuery,
      response: { 200: z.object({ entries: z.array(FileInfo) }) },
    };
    app.get(`${base}/files/list`, { schema: listed }, async ({ account, params, query }) => {
      const guest = await guestOf(account.id, params.id);
      const entries: FileInfo[] = [];
      await askGuest(async () => {
        for await (const batch of guest.agent.files.list({ target: targetOf(query) }, deadline)) {
          entries.push(...batch.entries.map(fileInfoView));
          if (entries.length > MAX_LISTED)
            throw new InstaVMError('output_too_large', `more than ${MAX_LISTED} entries`);
        }
      });
      return { entries };
    });

    const made = { params: Params, body: MkdirRequest, response: { 200: FileInfo } };
    app.post(`${base}/files/mkdir`, { schema: made }, async ({ account, params, body }) => {
      const guest = await guestOf(account.id, params.id);
      const { mode, parents = false, owner = '', group = '' } = body;
      const request = { target: targetOf(body), parents, owner, group, ...(mode === undefined ? {} : { mode }) };
      return fileInfoView(await askGuest(() => guest.agent.files.mkdir(request, deadline)));
    });

    app.post(
      `${base}/files/remove`,
      { schema: { params: Params, body: RemoveRequest } },
      async ({ account, params, body }) => {
        const guest = await guestOf(account.id, params.id);
        const { recursive = false, force = false } = body;
        await askGuest(() => guest.agent.files.remove({ target: targetOf(body), recursive, force }, deadline));
        return {};
      },
    );

    const renamed = { params: Params, body: RenameRequest, response: { 200: FileInfo } };
    app.post(`${base}/files/rename`, { schema: renamed }, async ({ account, params, body }) => {
      const guest = await guestOf(account.id, params.id);
      const request = { from: targetOf({ ...body, path: body.from }), to: targetOf({ ...body, path: body.to }) };
      return fileInfoView(await askGuest(() => guest.agent.files.rename(request, deadline)));
    });

    app.get(
      `${base}/files/watch`,
      { schema: { params: Params, querystring: WatchQuery } },
      async ({ account, params, query }, reply) => {
        const guest = await guestOf(account.id, params.id);
        const events = watchEvents(guest, { target: targetOf(query), recursive: query.recursive ?? false });
        const first = await events.next();
        reply.headers({ 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
        async function* all(): AsyncGenerator<string> {
          if (!first.done) yield first.value;
          yield* events;
        }
        return reply.send(Readable.from(all(), { objectMode: false }));
      },
    );

    app.get(
      `${base}/tar`,
      { schema: { params: Params, querystring: PackQuery } },
      async ({ account, params, query }, reply) => {
        const guest = await guestOf(account.id, params.id);
        const archive = await packTar(guest, query, query.exclude ?? []);
        reply.header('content-type', 'application/x-tar');
        return reply.send(Readable.from(archive, { objectMode: false, highWaterMark: 512 * 1024 }));
      },
    );

    const unpacked = { params: Params, querystring: UnpackQuery, response: { 200: UnpackResponse } };
    app.put(`${base}/tar`, { schema: unpacked }, async ({ account, params, query, body }) => {
      const guest = await guestOf(account.id, params.id);
      const { owner, group, max_bytes: maxBytes, max_entries: maxEntries } = query;
      const done = await unpackTar(guest, { target: query, owner, group, maxBytes, maxEntries }, bodyStream(body));
      return { entries: Number(done.entries), size_bytes: Number(done.sizeBytes) };
    });
  };

/** @throws malformed_request when the body was sent as JSON, which is parsed before anybody sees its bytes */
function bodyStream(body: unknown): AsyncIterable<Uint8Array> {
  if (body === undefined || body === null) return Readable.from([]);
  if (body instanceof Readable) return body;
  throw new InstaVMError('malformed_request', 'send the contents as application/octet-stream');
}

const KIND_WORDS: Readonly<Record<WatchKind, string>> = {
  [WatchKind.UNSPECIFIED]: 'unknown',
  [WatchKind.READY]: 'ready',
  [WatchKind.CREATED]: 'created',
  [WatchKind.MODIFIED]: 'modified',
  [WatchKind.REMOVED]: 'removed',
  [WatchKind.MOVED]: 'moved',
  [WatchKind.OVERFLOW]: 'overflow',
};

async function* watchEvents(
  guest: Guest,
  request: { target: ReturnType<typeof targetOf>; recursive: boolean },
): AsyncGenerator<string> {
  const stop = new AbortController();
  try {
    for await (const event of guest.agent.files.watch(request, { signal: stop.signal })) {
      const bytes = Buffer.from(event.path);
      const path = bytes.toString('utf8');
      const exact = Buffer.from(path, 'utf8').equals(bytes) ? {} : { path_base64: bytes.toString('base64') };
      yield `data: ${JSON.stringify({ kind: KIND_WORDS[event.kind] ?? 'unknown', path, ...exact })}\n\n`;
    }
  } catch (error) {
    throw guestError(error);
  } finally {
    stop.abort();
  }
}
