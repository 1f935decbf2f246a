/**
 * Traces, by OpenTelemetry. Everything here speaks to its API, which does nothing until `startTracing` has given it an SDK: without an
 * endpoint in the configuration none is loaded. Spans carry ids of requests and sandboxes, never commands, environments or contents.
 */
import { type Attributes, context, propagation, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';

const tracer = trace.getTracer('instavmd');

/** Runs the work, once and at once, as a span of the trace that is under way. */
export function span<T>(
  name: string,
  attributes: Attributes,
  work: (span: Span) => Promise<T>,
  kind: SpanKind = SpanKind.INTERNAL,
): Promise<T> {
  return tracer.startActiveSpan(name, { kind, attributes }, async (active) => {
    try {
      return await work(active);
    } catch (error) {
      failed(active, error);
      throw error;
    } finally {
      active.end();
    }
  });
}

/** With the code of the catalog, not with the sentence: that may name what a person chose. */
export function failed(active: Span, error: unknown): void {
  active.setStatus({ code: SpanStatusCode.ERROR, message: String((error as { code?: unknown }).code ?? 'internal') });
}

/** Which sandbox the span under way is about. */
export const aboutSandbox = (id: string): void => void trace.getActiveSpan()?.setAttribute('instavm.sandbox_id', id);

export { context, propagation, type Span, SpanKind, trace };
