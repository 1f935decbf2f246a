/** The two routes of `/v2` whose request body is the contents: a file, a tar stream. */
import { FileInfo, UnpackQuery, UnpackResponse, WriteFileQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { RUN } from '../auth.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { fileInfoView, unpackTar, writeFile } from '../guest/transfer.ts';
import { bodyPieces } from '../request-body.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

const Params = z.object({ id: z.string() });

export const uploadRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    // Bodies reach the handlers as streams, whatever type they say they are of.
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));

    const written = {
      summary: 'Write a file, streamed; it appears complete or not at all',
      consumes: ['application/octet-stream'],
      params: Params,
      querystring: WriteFileQuery,
      response: { 200: FileInfo },
    };
    app.put('/v2/sandboxes/:id/files', { ...RUN, schema: written }, async ({ caller, params, query, body }, reply) => {
      const guest = await heldGuest(await ownerOf(services, caller, params.id), reply);
      const { mode, parents, owner, group, append, modified_at } = query;
      const modifiedAt = modified_at === undefined ? undefined : new Date(modified_at);
      const options = { target: query, mode, parents, owner, group, append, modifiedAt };
      return fileInfoView(await writeFile(guest, options, bodyPieces(body), untilClosed(reply)));
    });

    const unpacked = {
      summary: 'Unpack a tar stream below a directory',
      consumes: ['application/x-tar'],
      params: Params,
      querystring: UnpackQuery,
      response: { 200: UnpackResponse },
    };
    app.put('/v2/sandboxes/:id/tar', { ...RUN, schema: unpacked }, async ({ caller, params, query, body }, reply) => {
      const guest = await heldGuest(await ownerOf(services, caller, params.id), reply);
      const { owner, group, max_bytes: maxBytes, max_entries: maxEntries } = query;
      const options = { target: query, owner, group, maxBytes, maxEntries };
      const done = await unpackTar(guest, options, bodyPieces(body), untilClosed(reply));
      return { entries: Number(done.entries), size_bytes: Number(done.sizeBytes) };
    });
  };
