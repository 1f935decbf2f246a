/** The OpenAPI document, made from the schemas that validate, and a readable page of it that loads nothing from elsewhere. */
import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance, type FastifyPluginAsync } from 'fastify';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { DeclaredRoute } from '../app.ts';

type Content = { content?: Record<string, unknown> };
type Operation = {
  responses?: Record<string, Content>;
  security?: unknown;
  requestBody?: Content & { required?: boolean };
  /** Of the key that it takes. */
  'x-scope'?: unknown;
};
type Document = { paths?: Record<string, Record<string, Operation>> };

/** Every failure of every route has this one shape (`answerErrors`). */
const FAILURE = {
  description: 'Every failure; see docs/reference/errors.md for the codes.',
  content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
};

const BYTES = { type: 'string', format: 'binary' };

export async function openApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'InstaVM',
        version: '0.1.0',
        description:
          'Sandboxes in microVMs. `/v1` and the unversioned routes are the public contract; `/v2` are additions beside it.',
      },
      components: { securitySchemes: { apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' } } },
      security: [{ apiKey: [] }],
    },
    transform: jsonSchemaTransform,
    transformObject: (parts) => {
      const document = jsonSchemaTransformObject(parts) as Document;
      for (const [path, operations] of Object.entries(document.paths ?? {})) {
        for (const [method, operation] of Object.entries(operations)) {
          const url = path.replaceAll(/\{(\w+)\}/g, ':$1');
          const route = app.declared.find((each) => each.url === url && each.method.toLowerCase() === method);
          describeBodies(operation, route?.bodies);
          operation.responses = { ...operation.responses, default: FAILURE };
          if (route?.isPublic) operation.security = [];
          else operation['x-scope'] = route?.scope;
        }
      }
      return document as ReturnType<typeof jsonSchemaTransformObject>;
    },
  });
}

/** What zod's schemas do not tell: a body that may be left out, and those that are streams of bytes. */
function describeBodies(operation: Operation, bodies: DeclaredRoute['bodies'] | undefined): void {
  const { isOptional, form, consumes = [], produces = [] } = bodies ?? {};
  if (operation.requestBody !== undefined && isOptional) operation.requestBody.required = false;
  const ofBytes = (types: readonly string[]) => Object.fromEntries(types.map((type) => [type, { schema: BYTES }]));
  if (form !== undefined)
    operation.requestBody = { content: { 'multipart/form-data': { schema: form } }, required: true };
  else if (consumes.length > 0) operation.requestBody ??= { content: ofBytes(consumes), required: true };
  const answer = operation.responses?.['200'];
  const streams = produces.filter((type) => type !== 'application/json');
  if (answer !== undefined && streams.length > 0) answer.content = { ...answer.content, ...ofBytes(streams) };
}

/** It has the dashboard's origin, and more code of others than anyone reads: it loads and asks nothing elsewhere, and is framed by nobody. */
const PAGE_HEADERS = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self' 'unsafe-inline'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

export const documentationRoutes: FastifyPluginAsync = async (app) => {
  app.get('/openapi.json', { config: { isPublic: true }, schema: { hide: true } }, async () => app.swagger());

  // The page's code is 5 MB that few daemons are ever asked for: it is loaded with the first request.
  let page: Promise<FastifyInstance> | undefined;
  for (const url of ['/docs', '/docs/', '/docs/*']) {
    app.get(url, { config: { isPublic: true }, schema: { hide: true } }, async (request, reply) => {
      page ??= loadPage();
      const answer = await (await page).inject({ method: 'GET', url: request.url });
      for (const name of ['content-type', 'location']) {
        const value = answer.headers[name];
        if (value !== undefined) reply.header(name, value);
      }
      return reply.headers(PAGE_HEADERS).code(answer.statusCode).send(answer.rawPayload);
    });
  }
};

async function loadPage(): Promise<FastifyInstance> {
  const { default: scalar } = await import('@scalar/fastify-api-reference');
  const page = Fastify();
  await page.register(scalar, {
    routePrefix: '/docs',
    configuration: { url: '/openapi.json', telemetry: false, withDefaultFonts: false, hideClientButton: true },
  });
  await page.ready();
  return page;
}
