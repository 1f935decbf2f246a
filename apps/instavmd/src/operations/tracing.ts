/**
 * Traces, by OpenTelemetry. Everything here speaks to its API, which does nothing until `startTracing` has given it an SDK: without an
 * endpoint in the configuration none is loaded. Spans carry ids of requests and sandboxes, never commands, environments or contents.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { guestSpans } from '@instavm/agent-client';
import type { Clock } from '@instavm/core';
import {
  type Attributes,
  type Context,
  context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { TracingEnvironment } from '../config.ts';
import { asInstaVMError } from '../errors.ts';

const tracer = trace.getTracer('instavmd');

/** Of calls to guests; none where nobody traces. */
export let guestInterceptors: readonly ReturnType<typeof guestSpans>[] = [];

/** Once, before the daemon starts. @returns how to send what is left, and stop */
export async function startTracing(environment: TracingEnvironment | undefined): Promise<() => Promise<void>> {
  if (environment === undefined) return async () => {};
  const { startSdk } = await import('./tracing-sdk.ts');
  guestInterceptors = [guestSpans(tracer)];
  return startSdk(environment);
}

/** Runs the work, once and at once, as a span of the trace that is under way. */
export function span<T>(
  name: string,
  attributes: Attributes,
  work: () => Promise<T>,
  kind: SpanKind = SpanKind.INTERNAL,
): Promise<T> {
  return tracer.startActiveSpan(name, { kind, attributes }, async (active) => {
    try {
      return await work();
    } catch (error) {
      // The code of the catalog, not the sentence: that may name what a person chose.
      active.setStatus({ code: SpanStatusCode.ERROR, message: asInstaVMError(error).code });
      throw error;
    } finally {
      active.end();
    }
  });
}

/** The work of a request that has come, in the trace of its caller. */
export const served = <T>(
  headers: IncomingHttpHeaders,
  name: string,
  attributes: Attributes,
  work: () => Promise<T>,
): Promise<T> =>
  context.with(propagation.extract(ROOT_CONTEXT, headers), () => span(name, attributes, work, SpanKind.SERVER));

/** What is due later belongs to no trace, though what ran when it was put off did. */
export const untraced = (clock: Clock): Clock => ({
  now: () => clock.now(),
  schedule: (at, run) => clock.schedule(at, () => context.with(ROOT_CONTEXT, run)),
});

/** Which sandbox the span under way is about. */
export const aboutSandbox = (id: string): void => void trace.getActiveSpan()?.setAttribute('instavm.sandbox_id', id);

type Traced = { readonly span: Span; readonly context: Context };

/** Every request as a span. Registered before anything that a request may meet, and only where someone traces. */
export function traceRequests(app: FastifyInstance): void {
  if (guestInterceptors.length === 0) return;
  const traces = new WeakMap<FastifyRequest, Traced>();
  app.addHook('onRequest', (request, _reply, done) => {
    const parent = propagation.extract(ROOT_CONTEXT, request.headers);
    const route = request.is404 ? 'none' : (request.routeOptions.url ?? 'none');
    const { method, id } = request;
    const attributes = { 'http.request.method': method, 'http.route': route, 'instavm.request_id': id };
    const active = tracer.startSpan(`${method} ${route}`, { kind: SpanKind.SERVER, attributes }, parent);
    const own = trace.setSpan(parent, active);
    traces.set(request, { span: active, context: own });
    context.with(own, done);
  });
  // A body that was read was read in the context of its socket.
  app.addHook('preHandler', (request, _reply, done) =>
    context.with(traces.get(request)?.context ?? ROOT_CONTEXT, done),
  );
  app.addHook('onError', async (request, _reply, error) => {
    const message = asInstaVMError(error).code;
    traces.get(request)?.span.setStatus({ code: SpanStatusCode.ERROR, message });
  });
  app.addHook('onResponse', async (request, reply) => {
    const active = traces.get(request)?.span;
    active?.setAttribute('http.response.status_code', reply.statusCode);
    active?.end();
  });
}
