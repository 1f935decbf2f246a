/** One viewer of a terminal in the daemon's tests, with everything it received. */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import type { Api } from './api.ts';

export type ViewerOptions = {
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** `sessions` or `vms`. */
  readonly scope?: string;
};

export class PtySocket {
  readonly socket: WebSocket;
  readonly frames: Record<string, unknown>[] = [];
  readonly pieces: Buffer[] = [];
  readonly closed: Promise<number>;
  closeReason = '';

  constructor({ daemon }: Api, id: string, pty: string, options: ViewerOptions = {}) {
    const { query = {}, headers = { 'x-api-key': daemon.apiKey }, scope = 'sessions' } = options;
    const url = new URL(
      `/v1/${scope}/${id}/pty/${encodeURIComponent(pty)}/connect`,
      daemon.baseUrl.replace('http', 'ws'),
    );
    url.search = new URLSearchParams(query).toString();
    this.socket = new WebSocket(url, { headers });
    this.socket.on('message', (data: Buffer, isBinary) => {
      if (isBinary) this.pieces.push(data);
      else this.frames.push(JSON.parse(data.toString()));
    });
    this.closed = new Promise((resolve) => {
      this.socket.on('error', () => {});
      this.socket.once('close', (code, reason) => {
        this.closeReason = reason.toString();
        resolve(code);
      });
    });
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces);
  }

  get text(): string {
    return this.bytes.toString('utf8');
  }

  /** Of the next byte. */
  get offset(): number {
    return Number(this.frames[0]?.offset) + this.bytes.length;
  }

  get exit(): Record<string, unknown> | undefined {
    return this.frames.find(({ type }) => type === 'exit');
  }

  opened(): Promise<unknown> {
    return once(this.socket, 'open');
  }

  type(text: string | Buffer): void {
    this.socket.send(Buffer.from(text));
  }

  send(frame: unknown): void {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  leave(): void {
    this.socket.terminate();
  }
}

/** @returns status and error code of an upgrade that is refused */
export async function refusal(viewer: PtySocket): Promise<[number, string]> {
  const [, response] = await once(viewer.socket, 'unexpected-response');
  let text = '';
  for await (const piece of response) text += piece;
  return [response.statusCode, JSON.parse(text).code];
}
