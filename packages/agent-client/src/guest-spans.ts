/**
 * Calls to a guest as spans of a trace (W3C Trace Context). The agent says how long a call was in the guest, at the end of its answer, and the
 * span of that is made here: a guest exports nothing. What it says is a hostile guest's word, so it is a number within the call or nothing.
 */
import { Code, ConnectError, type Interceptor, type StreamResponse } from '@connectrpc/connect';
import { context, propagation, type Span, SpanKind, SpanStatusCode, type Tracer, trace } from '@opentelemetry/api';
import type { ExecEvent } from './gen/agent_pb.js';

const IN_GUEST = /^agent;dur=(\d{1,9}(?:\.\d{1,3})?)$/;
const SERVER_TIMING = 'server-timing';

/** @param tracer of who calls. Only to be used where someone traces: it is not free */
export const guestSpans =
  (tracer: Tracer): Interceptor =>
  (next) =>
  (request) => {
    // What nobody asked for, such as the ping of a watch, is in no trace.
    if (trace.getActiveSpan() === undefined) return next(request);
    const { name } = request.method;
    const service = request.service.typeName.split('.').at(-1) ?? '';
    const call = `${service}/${name}`;
    const attributes = { 'rpc.system': 'grpc', 'rpc.service': request.service.typeName, 'rpc.method': name };
    return tracer.startActiveSpan(`guest ${call}`, { kind: SpanKind.CLIENT, attributes }, async (span) => {
      const startedAt = performance.now();
      propagation.inject(context.active(), request.header, { set: (header, key, value) => header.set(key, value) });
      const end = once((inGuestMs: number | undefined) => {
        if (inGuestMs !== undefined) inGuest(tracer, span, call, startedAt, inGuestMs);
        span.end();
      });
      const fail = (error: unknown): never => {
        const { code, metadata } = ConnectError.from(error);
        span.setStatus({ code: SpanStatusCode.ERROR, message: Code[code] });
        end(timeIn(metadata));
        throw error;
      };
      // A reader that has seen enough gives the call up, and the end of the answer is never read.
      request.signal.addEventListener('abort', () => end(undefined), { once: true });
      const response = await next(request).catch(fail);
      if (response.stream) return { ...response, message: watched(response, end, fail) };
      end(timeIn(response.trailer));
      return response;
    });
  };

/** It lasts as long as somebody reads, or until a command has ended, which says itself how long it took. */
async function* watched(
  response: StreamResponse,
  end: (inGuestMs: number | undefined) => void,
  fail: (error: unknown) => never,
): StreamResponse['message'] {
  try {
    for await (const message of response.message) {
      const { event } = message as Partial<ExecEvent>;
      if (event?.case === 'exit') end(Number(event.value.wallTimeUs) / 1000);
      yield message;
    }
    end(timeIn(response.trailer));
  } catch (error) {
    fail(error);
  }
}

/** In ms. */
function timeIn(said: Headers): number | undefined {
  const [, text] = IN_GUEST.exec(said.get(SERVER_TIMING) ?? '') ?? [];
  return text === undefined ? undefined : Number(text);
}

function inGuest(tracer: Tracer, call: Span, name: string, startedAt: number, ms: number): void {
  const now = performance.now();
  const duration = Math.min(ms, now - startedAt);
  // Nobody compares clocks with a guest: half of what is left was on the way there.
  const began = startedAt + (now - startedAt - duration) / 2;
  const parent = trace.setSpan(context.active(), call);
  const span = tracer.startSpan(`agent ${name}`, { kind: SpanKind.SERVER, startTime: wall(began) }, parent);
  span.setAttribute('instavm.where', 'guest');
  span.end(wall(began + duration));
}

/** Since the epoch, in ms. */
const wall = (at: number): number => performance.timeOrigin + at;

function once<Args extends readonly unknown[]>(run: (...args: Args) => void): (...args: Args) => void {
  let isDone = false;
  return (...args) => {
    if (isDone) return;
    isDone = true;
    run(...args);
  };
}
