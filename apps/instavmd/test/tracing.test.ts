/** Traces, as a collector gets them: what belongs together, and what is never in one. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { AgentClient, guestSpans } from '@instavm/agent-client';
import { GUEST_AGENT_PATH } from '@instavm/images';
import { startTestDaemon } from '@instavm/testing';
import { context, propagation } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { expect, it, vi } from 'vitest';
import { apiOf, stream } from './api.ts';

type Value = { readonly stringValue?: string; readonly intValue?: number };
type Span = {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly attributes: readonly { readonly key: string; readonly value: Value }[];
  readonly status: { readonly code?: number; readonly message?: string };
};
type Batch = { readonly resourceSpans: { scopeSpans: { spans: Span[] }[]; resource: object }[] };

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const CALLER = 'b7ad6b7169203331';

/** What a collector that speaks OTLP over HTTP receives. */
async function collector() {
  const batches: Batch[] = [];
  const server = createServer(async (request, response) => {
    batches.push((await json(request)) as Batch);
    response.setHeader('content-type', 'application/json').end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    text: () => JSON.stringify(batches),
    spans: () => batches.flatMap((each) => each.resourceSpans.flatMap((one) => one.scopeSpans.flatMap((s) => s.spans))),
    close: () => server.close(),
  };
}

const attribute = (span: Span | undefined, key: string): string | number | undefined => {
  const value = span?.attributes.find((each) => each.key === key)?.value;
  return value?.stringValue ?? value?.intValue;
};

it('a call to the real agent has a span for the time that it was in the guest, and none where nobody traces', async () => {
  const exporter = new InMemorySpanExporter();
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  const tracer = provider.getTracer('test');
  const directory = await mkdtemp(join(tmpdir(), 'instavm-tracing-test-'));
  const path = join(directory, 'agent');
  const agent = spawn(GUEST_AGENT_PATH, ['--listen-unix', path], { stdio: 'ignore' });
  // Its socket is there before anyone listens at it.
  const socket = await vi.waitFor(async () => {
    const attempt = connect(path);
    await once(attempt, 'connect');
    return attempt;
  }, 60_000);
  const client = await AgentClient.open(socket, 60_000, [guestSpans(tracer)]);
  await client.lifecycle.ping({});
  expect(exporter.getFinishedSpans()).toEqual([]);
  await tracer.startActiveSpan('asked', async (asked) => {
    await client.lifecycle.ping({});
    await client.pty.get({ id: 'nowhere' }).catch(() => {});
    asked.end();
  });
  const spans = exporter.getFinishedSpans();
  const names = spans.map(({ name }) => name).sort();
  expect(names).toEqual(['agent Lifecycle/Ping', 'agent Pty/Get', 'asked', 'guest Lifecycle/Ping', 'guest Pty/Get']);
  for (const call of ['Lifecycle/Ping', 'Pty/Get']) {
    const [inside, outside] = ['agent', 'guest'].map((where) => spans.find(({ name }) => name === `${where} ${call}`));
    expect(inside?.parentSpanContext?.spanId).toBe(outside?.spanContext().spanId);
  }
  client.close();
  const ended = once(agent, 'exit');
  agent.kill();
  await ended;
  await rm(directory, { recursive: true });
});

it('a trace goes from its caller through the daemon to the guest, with ids and without contents', async () => {
  const { url, spans, text, close } = await collector();
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_SERVICE_NAME: 'my-instavmd', OTEL_TRACES_SAMPLER_ARG: '0' };
  const daemon = await startTestDaemon({ vmm: 'fake', env });
  const api = apiOf(daemon);
  const traceparent = `00-${TRACE}-${CALLER}-01`;
  const headers = { 'content-type': 'application/json', traceparent, 'x-request-id': 'of-the-caller' };
  const body = JSON.stringify({ env: { SECRET: 'marker-of-the-environment' } });
  const made = await api.request('POST', '/v2/sandboxes', { body, headers });
  const { id } = made.body;
  const command = JSON.stringify({ session_id: id, command: 'echo marker-of-a-command', language: 'bash' });
  expect((await api.request('POST', '/execute', { body: command, headers })).body.stdout).toContain('marker');
  await api.request('GET', '/v2/sandboxes/00000000-0000-4000-8000-000000000000', { headers: { traceparent } });
  // Nobody asked for a trace of this one, and of those the configuration wants none.
  await stream(api, id, { script: 'true' });
  await daemon.stop();
  close();

  const all = spans();
  const named = (name: string): Span | undefined => all.find((each) => each.name === name);
  const parentOf = (span: Span | undefined): string | undefined =>
    all.find((each) => each.spanId === span?.parentSpanId)?.name;
  expect(new Set(all.map(({ traceId }) => traceId))).toEqual(new Set([TRACE]));
  const request = named('POST /v2/sandboxes');
  expect(request?.parentSpanId).toBe(CALLER);
  expect(attribute(request, 'instavm.request_id')).toBe('of-the-caller');
  expect(attribute(request, 'http.response.status_code')).toBe(201);
  const create = named('sandbox.create');
  expect([parentOf(create), attribute(create, 'instavm.sandbox_id')]).toEqual(['POST /v2/sandboxes', id]);
  for (const part of ['template.get', 'vmm.restore', 'guest.attach', 'guest.personalize'])
    expect([part, parentOf(named(part))]).toEqual([part, 'sandbox.create']);
  expect(parentOf(named('guest Lifecycle/Personalize'))).toBe('guest.personalize');
  // Behind a body, and a stream.
  expect(parentOf(named('guest Exec/Run'))).toBe('POST /execute');
  expect(parentOf(named('agent Exec/Run'))).toBe('guest Exec/Run');
  expect(attribute(named('POST /execute'), 'instavm.sandbox_id')).toBe(id);
  expect(named('GET /v2/sandboxes/:id')?.status).toEqual({ code: 2, message: 'sandbox_not_found' });
  expect(text()).toContain('my-instavmd');
  expect(text()).not.toContain('marker');
  expect(text()).not.toContain(daemon.apiKey);
});

it('a collector that is not there any more keeps no daemon from ending cleanly', async () => {
  const { url, close } = await collector();
  close();
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_EXPORTER_OTLP_TIMEOUT: '500', OTEL_TRACES_SAMPLER_ARG: '1' };
  const daemon = await startTestDaemon({ vmm: 'fake', env });
  await apiOf(daemon).createSession();
  await daemon.stop();
  expect(daemon.log()).toContain('the last spans could not be sent');
});
