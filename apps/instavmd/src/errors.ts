/** Every failure leaves as the catalog's JSON body; what nobody foresaw is logged and answered as `internal`. */
import type { Socket } from 'node:net';
import { AgentError } from '@instavm/agent-client';
import { errorBody, InstaVMError } from '@instavm/wire';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { guestError } from './guest/errors.ts';

/** Of every answer: a browser must not make a page of what a sandbox or a client wrote. */
export const AS_DECLARED = { 'x-content-type-options': 'nosniff' };

/** A client that does not go after such an answer is cut off. */
const CLOSING_MS = 1_000;

type Field = { readonly path: string; readonly message: string };

export function answerErrors(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(error, request, reply));
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0];
    return answerError(
      new InstaVMError('route_not_found', `there is no route ${request.method} ${path}`),
      request,
      reply,
    );
  });
}

export function answerError(
  error: unknown,
  request: Pick<FastifyRequest, 'id' | 'log' | 'raw'>,
  reply: Pick<FastifyReply, 'sent' | 'code' | 'type' | 'send' | 'header' | 'headers' | 'removeHeader'>,
): void {
  const failure = asInstaVMError(error);
  if (failure.status >= 500) request.log.error({ err: error, code: failure.code }, failure.message);
  if (reply.sent) return;
  // The rest of a refused body is read and dropped: to close the connection under a client that still sends would hide the answer.
  if (failure.code === 'body_too_large') {
    reply.removeHeader('connection');
    request.raw.resume();
  }
  reply.code(failure.status).headers(AS_DECLARED);
  const retryAfter = retryAfterSeconds(failure);
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter);
  reply.type('application/json');
  reply.send(JSON.stringify(errorBody(failure, request.id)));
}

/** Whole seconds (RFC 9110 §10.2.3). */
function retryAfterSeconds({ details }: InstaVMError): number | undefined {
  const ms = details?.retryAfterMs;
  return typeof ms === 'number' ? Math.ceil(ms / 1000) : undefined;
}

/** Answers what the HTTP parser could not read; there is no request to log. */
export function refuseMalformed(error: Error, socket: Socket): void {
  if (!socket.writable) return;
  const failure = new InstaVMError('malformed_request', `this is not HTTP/1.1: ${error.message}`);
  const body = JSON.stringify(errorBody(failure, crypto.randomUUID()));
  socket.end(
    `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n` +
      `connection: close\r\n\r\n${body}`,
  );
  setTimeout(() => socket.destroy(), CLOSING_MS).unref();
}

export function asInstaVMError(error: unknown): InstaVMError {
  if (error instanceof InstaVMError) return error;
  if (error instanceof AgentError) return guestError(error);
  if (hasZodFastifySchemaValidationErrors(error)) return invalidFields(error.validation.flatMap(fieldsOf));
  const { statusCode = 500, message = '' } = error as Partial<FastifyError>;
  if (statusCode === 413) return new InstaVMError('body_too_large', 'the request body is too large');
  // What the HTTP layer itself refuses: a body that is no JSON, a content type nobody parses, a path that is no text.
  if (statusCode >= 400 && statusCode < 500) return new InstaVMError('malformed_request', message);
  return new InstaVMError('internal', 'something went wrong on the server', { cause: error });
}

/** @param fields with the path of each inside the body or query */
export function invalidFields(fields: readonly Field[]): InstaVMError {
  const sentence = fields.map(({ path, message }) => `${path}: ${message}`).join('; ');
  return new InstaVMError('invalid_argument', sentence, { details: { fields } });
}

function fieldsOf(issue: {
  instancePath: string;
  message?: string | undefined;
  params?: Record<string, unknown>;
}): Field[] {
  const path = issue.instancePath.replace(/^\//, '').replaceAll('/', '.');
  const keys =
    (issue.params as { issue?: { keys?: string[] } } | undefined)?.issue?.keys ??
    (issue.params?.keys as string[] | undefined);
  if (keys !== undefined)
    return keys.map((key) => ({ path: path === '' ? key : `${path}.${key}`, message: 'unknown field' }));
  const message = issue.message ?? 'is not valid';
  return [{ path: path === '' ? 'body' : path, message }];
}
