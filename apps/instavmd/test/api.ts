/** What the daemon's tests say to it: requests with the key, and JSON back. */
import { once } from 'node:events';
import type { TestDaemon } from '@instavm/testing';
import { WebSocket } from 'ws';

// biome-ignore lint/suspicious/noExplicitAny: answers are whatever the server sent; the tests look at them.
export type Answer = { status: number; body: any; headers: Headers };

export type Api = ReturnType<typeof apiOf>;

export function apiOf(daemon: TestDaemon) {
  const request = async (method: string, path: string, init: RequestInit = {}): Promise<Answer> => {
    const headers = { 'x-api-key': daemon.apiKey, ...(init.headers as Record<string, string> | undefined) };
    const response = await fetch(daemon.baseUrl + path, { redirect: 'manual', ...init, method, headers });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    return {
      status: response.status,
      body: isJson && text !== '' ? JSON.parse(text) : text,
      headers: response.headers,
    };
  };
  const json = (method: string, path: string, body: unknown): Promise<Answer> =>
    request(method, path, { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  const createSession = async (fields: object = {}): Promise<string> => {
    const wanted = { api_key: daemon.apiKey, vm_lifetime_seconds: 3_600, ...fields };
    return (await json('POST', '/v1/sessions/session', wanted)).body.session_id;
  };
  const execute = (sessionId: string, command: string, fields: object = {}): Promise<Answer> =>
    json('POST', '/execute', { session_id: sessionId, command, language: 'bash', ...fields });
  return { daemon, request, json, createSession, execute };
}

/** One streaming exec, with everything it received. */
export class ExecSocket {
  readonly socket: WebSocket;
  readonly frames: Record<string, unknown>[] = [];
  stdout = Buffer.alloc(0);
  stderr = Buffer.alloc(0);
  readonly closed: Promise<number>;

  constructor({ daemon }: Api, sandboxId: string) {
    const url = `${daemon.baseUrl.replace('http', 'ws')}/v2/sandboxes/${sandboxId}/exec`;
    this.socket = new WebSocket(url, { headers: { 'x-api-key': daemon.apiKey } });
    this.socket.on('message', (data: Buffer, isBinary) => {
      if (!isBinary) this.frames.push(JSON.parse(data.toString()));
      else if (data[0] === 1) this.stdout = Buffer.concat([this.stdout, data.subarray(1)]);
      else this.stderr = Buffer.concat([this.stderr, data.subarray(1)]);
    });
    this.closed = once(this.socket, 'close').then(([code]) => code as number);
  }

  async start(fields: object): Promise<void> {
    await once(this.socket, 'open');
    this.send({ type: 'start', ...fields });
  }

  send(frame: object | Buffer): void {
    this.socket.send(Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  /** The last text frame, after the end. */
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  async last(): Promise<any> {
    await this.closed;
    return this.frames.at(-1);
  }
}

/** Runs a command to its end. */
export async function stream(api: Api, sandboxId: string, fields: object): Promise<ExecSocket> {
  const exec = new ExecSocket(api, sandboxId);
  await exec.start(fields);
  await exec.closed;
  return exec;
}
