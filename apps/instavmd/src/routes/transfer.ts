/** Upload and download of the contract (§6): one file in a form, one file as base64 in JSON. */
import { Readable } from 'node:stream';
import formbody from '@fastify/formbody';
import multipart from '@fastify/multipart';
import { DownloadRequest, InstaVMError } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import type { Services } from '../app.ts';
import { fileInfoView, readFile, writeFile } from '../guest/transfer.ts';
import { ownerOf } from './views.ts';

export const transferRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    await app.register(formbody);
    // The file is streamed to the guest, whose disk is the limit; the form's other fields are short.
    await app.register(multipart, {
      limits: { fileSize: Number.POSITIVE_INFINITY, fieldSize: 8192, fields: 16, files: 1 },
    });

    app.post('/upload', async (request) => {
      const file = await request.file();
      if (file === undefined) throw new InstaVMError('malformed_request', 'the form has no file part');
      // The fields stand before the file (contract §6), so they are known here.
      const field = (name: string): string => {
        const part = file.fields[name];
        const value = part !== undefined && !Array.isArray(part) && part.type === 'field' ? part.value : undefined;
        if (typeof value !== 'string') {
          throw new InstaVMError('invalid_argument', `${name}: is required, before the file part`, {
            details: { fields: [{ path: name, message: 'is required' }] },
          });
        }
        return value;
      };
      const owner = await ownerOf(services, request.account.id, field('session_id'));
      const target = { path: absolute(field('remote_path')) };
      const info = fileInfoView(await writeFile(await owner.wokenGuest(), { target, parents: true }, file.file));
      return { success: true, remote_path: target.path, size: info.size_bytes };
    });

    app.post('/download', { schema: { body: DownloadRequest } }, async ({ account, body }, reply) => {
      const owner = await ownerOf(services, account.id, body.session_id);
      const { info, contents } = await readFile(await owner.wokenGuest(), {
        target: { path: absolute(body.filename) },
      });
      reply.type('application/json');
      return reply.send(Readable.from(downloadBody(fileInfoView(info).name, contents), { objectMode: false }));
    });
  };

/** Relative names of the contract start where commands do. */
const absolute = (path: string): string => (path.startsWith('/') ? path : `/workspace/${path}`);

/** JSON made piece by piece: base64 in groups of three bytes, so that the pieces join into one text. */
async function* downloadBody(name: string, contents: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  yield `{"filename":${JSON.stringify(name)},"content":"`;
  let rest = Buffer.alloc(0);
  let isEmpty = true;
  for await (const piece of contents) {
    const bytes = Buffer.concat([rest, piece]);
    const whole = bytes.length - (bytes.length % 3);
    rest = bytes.subarray(whole);
    isEmpty &&= bytes.length === 0;
    yield bytes.toString('base64', 0, whole);
  }
  // The official client takes an empty text for a missing one; a line feed decodes to no bytes (contract §1 #16).
  yield isEmpty ? '\\n' : rest.toString('base64');
  yield '"}';
}
