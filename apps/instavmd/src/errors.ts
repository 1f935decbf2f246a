/** Every failure leaves as the catalog's JSON body; what nobody foresaw is logged and answered as `internal`. */

import { AgentError } from '@instavm/agent-client';
import { errorBody, InstaVMError } from '@instavm/wire';
import type { FastifyError, FastifyInstance } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { guestError } from './guest/errors.ts';

type Field = { readonly path: string; readonly message: string };

export function answerErrors(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const failure = asInstaVMError(error);
    if (failure.status >= 500) request.log.error({ err: error, code: failure.code }, failure.message);
    if (reply.sent) return;
    return reply
      .code(failure.status)
      .type('application/json')
      .send(JSON.stringify(errorBody(failure, request.id)));
  });
  app.setNotFoundHandler((request, reply) => {
    const failure = new InstaVMError(
      'route_not_found',
      `there is no route ${request.method} ${request.url.split('?', 1)[0]}`,
    );
    return reply
      .code(404)
      .type('application/json')
      .send(JSON.stringify(errorBody(failure, request.id)));
  });
}

export function asInstaVMError(error: unknown): InstaVMError {
  if (error instanceof InstaVMError) return error;
  if (error instanceof AgentError) return guestError(error);
  if (hasZodFastifySchemaValidationErrors(error)) return invalidFields(error.validation.flatMap(fieldsOf));
  const { code = '', message = '' } = error as Partial<FastifyError>;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new InstaVMError('body_too_large', 'the request body is too large');
  if (code.startsWith('FST_ERR_CTP_') || error instanceof SyntaxError)
    return new InstaVMError('malformed_body', message);
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
