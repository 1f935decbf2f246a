/**
 * The OpenAI-compatible endpoint on loopback that the demo's agents talk to. It shows every tool call with its real output as
 * they pass, and gets its answers either from the script beside this file or, with OPENAI_API_KEY, from the real service.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { commandOutput, nextStep, type ToolOutput } from './scripted-analyst.ts';

export type ToolEvent =
  | { readonly kind: 'call'; readonly name: string; readonly text: string }
  | { readonly kind: 'output'; readonly text: string };

export type ModelEndpoint = {
  /** For OPENAI_BASE_URL. */
  readonly url: string;
  /** Forgets the run before; `onEvent` receives what the next run's agent does. */
  begin(onEvent: (event: ToolEvent) => void): void;
  close(): Promise<void>;
};

type Json = Record<string, unknown>;

const MAX_BODY_BYTES = 32 * 1024 * 1024;

/** @param upstream base URL and key of a real service; undefined uses the script */
export async function startModelEndpoint(
  upstream: { baseUrl: string; apiKey: string } | undefined,
): Promise<ModelEndpoint> {
  let onEvent: (event: ToolEvent) => void = () => {};
  let seenOutputs = 0;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.method !== 'POST' || request.url === undefined)
      return void respond(response, 404, { error: 'not here' });
    const body = JSON.parse(await readBody(request)) as Json;
    const outputs = toolOutputs(body.input);
    for (const output of outputs.slice(seenOutputs)) onEvent({ kind: 'output', text: commandOutput(output.text) });
    seenOutputs = outputs.length;
    if (upstream === undefined) {
      const tools = Array.isArray(body.tools) ? (body.tools as Json[]) : [];
      const items = [
        nextStep(
          outputs,
          tools.some((tool) => tool.type === 'apply_patch'),
        ),
      ];
      for (const item of items) announce(item, onEvent);
      return respond(response, 200, scriptedResponse(body.model, items));
    }
    const reply = await fetch(`${upstream.baseUrl}${request.url.replace(/^\/v1/, '')}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${upstream.apiKey}` },
      body: JSON.stringify(body),
    });
    const text = await reply.text();
    if (reply.ok)
      for (const item of ((JSON.parse(text) as Json).output as Json[] | undefined) ?? []) announce(item, onEvent);
    response
      .writeHead(reply.status, { 'content-type': reply.headers.get('content-type') ?? 'application/json' })
      .end(text);
  };

  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => respond(response, 500, { error: { message: String(error) } }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    begin: (listener) => {
      onEvent = listener;
      seenOutputs = 0;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function respond(response: ServerResponse, status: number, body: Json): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > MAX_BODY_BYTES) throw new Error(`request body over ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

const OUTPUT_TYPES = new Set(['function_call_output', 'apply_patch_call_output', 'custom_tool_call_output']);

function toolOutputs(input: unknown): ToolOutput[] {
  if (!Array.isArray(input)) return [];
  return (input as Json[])
    .filter((item) => OUTPUT_TYPES.has(String(item.type)))
    .map((item) => ({
      callId: String(item.call_id),
      text: typeof item.output === 'string' ? item.output : JSON.stringify(item.output ?? item.status),
    }));
}

function announce(item: Json, onEvent: (event: ToolEvent) => void): void {
  if (item.type === 'function_call') {
    const args = JSON.parse(String(item.arguments)) as Json;
    onEvent({
      kind: 'call',
      name: String(item.name),
      text: typeof args.cmd === 'string' ? args.cmd : JSON.stringify(args),
    });
  } else if (item.type === 'custom_tool_call') {
    onEvent({ kind: 'call', name: String(item.name), text: String(item.input) });
  } else if (item.type === 'apply_patch_call') {
    const operation = item.operation as Json;
    onEvent({
      kind: 'call',
      name: 'apply_patch',
      text: `${operation.type} ${operation.path}\n${operation.diff ?? ''}`,
    });
  }
}

const scriptedResponse = (model: unknown, output: Json[]): Json => ({
  id: `resp_${crypto.randomUUID()}`,
  object: 'response',
  created_at: Math.floor(Date.now() / 1000),
  status: 'completed',
  model,
  output,
  parallel_tool_calls: true,
  tool_choice: 'auto',
  tools: [],
  usage: {
    input_tokens: 0,
    output_tokens: 0,
    total_tokens: 0,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens_details: { reasoning_tokens: 0 },
  },
});
