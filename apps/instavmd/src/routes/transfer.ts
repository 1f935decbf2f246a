/** Upload and download of the contract (§6): one file in a form, one file as base64 in JSON. */
import { Readable } from 'node:stream';
import formbody from '@fastify/formbody';
import multipart, { type MultipartFile } from '@fastify/multipart';
import { DownloadRequest, DownloadResponse, InstaVMError, UploadResponse } from '@instavm/wire';
import type { FastifyRequest } from 'fastify';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import type { Services } from '../app.ts';
import { RUN } from '../auth.ts';
import { invalidFields } from '../errors.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { fileInfoView, readFile, writeFile } from '../guest/transfer.ts';
import { bodyPieces } from '../request-body.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

const MAX_PATH_LENGTH = 4096;
const FORM_FIELDS = ['remote_path', 'session_id', 'recursive'];
const FORM = {
  type: 'object',
  properties: {
    ...{ remote_path: { type: 'string' }, session_id: { type: 'string' }, recursive: { type: 'string' } },
    file: { type: 'string', format: 'binary', description: 'After the other fields.' },
  },
  required: ['remote_path', 'session_id', 'file'],
};

export const transferRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    await app.register(formbody);
    // The file is streamed to the guest, whose disk is the limit; the form's other fields are short.
    await app.register(multipart, {
      limits: { fileSize: Number.POSITIVE_INFINITY, fieldSize: 8192, fields: 16, files: 1 },
    });

    const uploaded = { summary: 'Upload one file, as a form', response: { 200: UploadResponse } };
    const config = { ...RUN.config, form: FORM };
    app.post('/upload', { config, schema: uploaded }, async (request, reply) => {
      const part = await filePart(request);
      const contents = bodyPieces(part.file);
      try {
        const form = fieldsOf(part);
        const owner = await ownerOf(services, request.caller, form.sessionId);
        const options = { target: { path: form.path }, parents: true };
        const guest = await heldGuest(owner, reply, 'always');
        const info = fileInfoView(await writeFile(guest, options, contents, untilClosed(reply)));
        return { success: true, remote_path: form.path, size: info.size_bytes };
      } finally {
        part.file.resume();
      }
    });

    const downloaded = {
      summary: 'Download one file, as base64 in JSON',
      consumes: ['application/x-www-form-urlencoded', 'application/json'],
      body: DownloadRequest,
      response: { 200: DownloadResponse },
    };
    app.post('/download', { ...RUN, schema: downloaded }, async ({ caller, body }, reply) => {
      const owner = await ownerOf(services, caller, body.session_id);
      const request = { target: { path: absolute(body.filename) }, signal: untilClosed(reply) };
      const { info, contents } = await readFile(await heldGuest(owner, reply, 'always'), request);
      reply.type('application/json');
      // The schema is that of the whole text; a stream is sent as it is.
      return reply.send(Readable.from(downloadBody(fileInfoView(info).name, contents), { objectMode: false }) as never);
    });
  };

/** @throws malformed_request */
async function filePart(request: FastifyRequest): Promise<MultipartFile> {
  if (!request.isMultipart()) throw new InstaVMError('malformed_request', 'send the file as multipart/form-data');
  let part: MultipartFile | undefined;
  try {
    part = await request.file();
  } catch (error) {
    throw new InstaVMError('malformed_request', `the form cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (part === undefined) throw new InstaVMError('malformed_request', 'the form has no file part');
  return part;
}

/** The fields stand before the file (contract §6), so all are known here. @throws invalid_argument with every bad field */
function fieldsOf({ fields, fieldname }: MultipartFile): { path: string; sessionId: string } {
  const problems: { path: string; message: string }[] = [];
  const text = (name: string): string => {
    const part = fields[name];
    const value = part !== undefined && !Array.isArray(part) && part.type === 'field' ? part.value : undefined;
    if (typeof value === 'string' && value !== '') return value;
    problems.push({ path: name, message: 'is required, once, before the file part' });
    return '';
  };
  const path = absolute(text('remote_path'));
  const sessionId = text('session_id');
  if (path.includes('\0') || path.length > MAX_PATH_LENGTH)
    problems.push({ path: 'remote_path', message: `must be a path of at most ${MAX_PATH_LENGTH} bytes without NUL` });
  for (const name of Object.keys(fields)) {
    if (name !== fieldname && !FORM_FIELDS.includes(name)) problems.push({ path: name, message: 'unknown field' });
  }
  if (problems.length > 0) throw invalidFields(problems);
  return { path, sessionId };
}

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
