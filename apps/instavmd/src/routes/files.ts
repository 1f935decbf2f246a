/** Files and tar streams of a sandbox (`/v2`), never held whole in memory. */
import { Readable } from 'node:stream';
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
} from '@instavm/wire';
import type { FastifyReply } from 'fastify';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { type Caller, READ, RUN } from '../auth.ts';
import { askGuest } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { fileInfoView, packTar, readFile, targetOf } from '../guest/transfer.ts';
import { untilClosed } from './until-closed.ts';
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
    const guestOf = async (caller: Caller, id: string, reply: FastifyReply): Promise<Guest> =>
      heldGuest(await ownerOf(services, caller, id), reply);
    const base = '/v2/sandboxes/:id';

    app.get(
      `${base}/files`,
      {
        ...READ,
        schema: {
          summary: 'Read a file, streamed',
          produces: ['application/octet-stream'],
          params: Params,
          querystring: ReadFileQuery,
        },
      },
      async ({ caller, params, query }, reply) => {
        const guest = await guestOf(caller, params.id, reply);
        const { info, contents } = await readFile(guest, {
          target: query,
          offset: query.offset,
          length: query.length,
          signal: untilClosed(reply),
        });
        const { size_bytes, mode } = fileInfoView(info);
        reply.headers({
          'content-type': 'application/octet-stream',
          'x-instavm-size': size_bytes,
          'x-instavm-mode': mode,
        });
        return reply.send(Readable.from(contents, { objectMode: false, highWaterMark: 512 * 1024 }));
      },
    );

    const described = {
      summary: 'Describe a file',
      params: Params,
      querystring: StatQuery,
      response: { 200: FileInfo },
    };
    app.get(`${base}/files/stat`, { ...READ, schema: described }, async ({ caller, params, query }, reply) => {
      const guest = await guestOf(caller, params.id, reply);
      const request = { target: targetOf(query), follow: query.follow ?? true };
      return fileInfoView(await askGuest(() => guest.agent.files.stat(request, deadline)));
    });

    const listed = {
      summary: 'Entries of a directory, in name order',
      params: Params,
      querystring: ListQuery,
      response: { 200: z.object({ entries: z.array(FileInfo) }) },
    };
    app.get(`${base}/files/list`, { ...READ, schema: listed }, async ({ caller, params, query }, reply) => {
      const guest = await guestOf(caller, params.id, reply);
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

    const made = { summary: 'Make a directory', params: Params, body: MkdirRequest, response: { 200: FileInfo } };
    app.post(`${base}/files/mkdir`, { ...RUN, schema: made }, async ({ caller, params, body }, reply) => {
      const guest = await guestOf(caller, params.id, reply);
      const { mode, parents = false, owner = '', group = '' } = body;
      const request = { target: targetOf(body), parents, owner, group, ...(mode === undefined ? {} : { mode }) };
      return fileInfoView(await askGuest(() => guest.agent.files.mkdir(request, deadline)));
    });

    const removed = {
      summary: 'Remove a file or directory',
      params: Params,
      body: RemoveRequest,
      response: { 200: z.object({}) },
    };
    app.post(`${base}/files/remove`, { ...RUN, schema: removed }, async ({ caller, params, body }, reply) => {
      const guest = await guestOf(caller, params.id, reply);
      const { recursive = false, force = false } = body;
      await askGuest(() => guest.agent.files.remove({ target: targetOf(body), recursive, force }, deadline));
      return {};
    });

    const renamed = {
      summary: 'Rename or move a file or directory',
      params: Params,
      body: RenameRequest,
      response: { 200: FileInfo },
    };
    app.post(`${base}/files/rename`, { ...RUN, schema: renamed }, async ({ caller, params, body }, reply) => {
      const guest = await guestOf(caller, params.id, reply);
      const request = { from: targetOf({ ...body, path: body.from }), to: targetOf({ ...body, path: body.to }) };
      return fileInfoView(await askGuest(() => guest.agent.files.rename(request, deadline)));
    });

    app.get(
      `${base}/tar`,
      {
        ...READ,
        schema: {
          summary: 'A directory as an uncompressed tar stream',
          produces: ['application/x-tar'],
          params: Params,
          querystring: PackQuery,
        },
      },
      async ({ caller, params, query }, reply) => {
        const guest = await guestOf(caller, params.id, reply);
        const archive = await packTar(guest, query, query.exclude ?? [], untilClosed(reply));
        reply.header('content-type', 'application/x-tar');
        return reply.send(Readable.from(archive, { objectMode: false, highWaterMark: 512 * 1024 }));
      },
    );
  };
