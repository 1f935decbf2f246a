/** Traces, as a collector gets them: what belongs together, and what is never in one. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { startTestDaemon } from '@instavm/testing';
import { expect, it } from 'vitest';
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
  expect(attribute(named('POST /execute'), 'instavm.sandbox_id')).toBe(id);
  expect(named('GET /v2/sandboxes/:id')?.status).toEqual({ code: 2, message: 'sandbox_not_found' });
  expect(text()).toContain('my-instavmd');
  expect(text()).not.toContain('marker');
  expect(text()).not.toContain(daemon.apiKey);
});
