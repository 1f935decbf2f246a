/** A guest's end of the egress channel: a unix socket, the SYNC/ACKN answer, and Node's own HTTP/2 client. What a hostile one sends is up to the test. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type SecureClientSessionOptions,
} from 'node:http2';
import { createServer, connect as dialSocket, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addAbortSignal } from 'node:stream';
import { ACKN, NONCE_BYTES, SYNC } from '@instavm/agent-client';
import { decode, encode, type Packet } from 'dns-packet';

export type Answer = {
  readonly status: number;
  readonly reason: string | undefined;
  readonly rule: string | undefined;
};

/** What the guest does with a channel after its ACKN. */
type Speak = (channel: Socket) => void;

export class Guest {
  /** Channels that the gateway has opened so far, and those still open. */
  opened = 0;
  readonly channels = new Set<Socket>();
  readonly #directory = mkdtempSync(join(tmpdir(), 'egress-test-'));
  readonly #server = createServer((channel) => this.#accept(channel));
  readonly #path = join(this.#directory, 'channel');
  #speak: Speak;
  #session = Promise.withResolvers<ClientHttp2Session>();
  #openSession: ClientHttp2Session | undefined;

  private constructor(speak: Speak | undefined) {
    this.#speak = speak ?? ((channel) => this.#speakHttp2(channel));
  }

  static async start(speak?: Speak): Promise<Guest> {
    const guest = new Guest(speak);
    guest.#server.listen(guest.#path);
    await once(guest.#server, 'listening');
    return guest;
  }

  /** What the gateway calls to open the channel. */
  readonly open = async (): Promise<Socket> => {
    const channel = dialSocket(this.#path);
    await once(channel, 'connect');
    return channel;
  };

  #accept(channel: Socket): void {
    this.opened++;
    this.channels.add(channel);
    channel.once('close', () => this.channels.delete(channel));
    channel.on('error', () => {});
    let kept: Buffer = Buffer.alloc(0);
    const onData = (piece: Buffer): void => {
      kept = Buffer.concat([kept, piece]);
      if (kept.length < SYNC.length + NONCE_BYTES) return;
      channel.off('data', onData).pause();
      channel.write(Buffer.concat([ACKN, kept.subarray(SYNC.length)]));
      this.#speak(channel);
    };
    channel.on('data', onData);
  }

  #speakHttp2(channel: Socket): void {
    const options: SecureClientSessionOptions = { createConnection: () => channel, maxSessionMemory: 1024 };
    const session = connect('http://gateway', options);
    session.on('error', () => {});
    session.once('close', () => {
      if (this.#openSession === session) this.#openSession = undefined;
    });
    this.#openSession = session;
    this.#session.resolve(session);
    this.#session = Promise.withResolvers();
  }

  async session(): Promise<ClientHttp2Session> {
    return this.#openSession ?? this.#session.promise;
  }

  /** A stream that asks for `authority`. Errors of it are left to whoever looks. */
  async connect(authority: string, options: { endStream?: boolean } = {}): Promise<ClientHttp2Stream> {
    const session = await this.session();
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false, ...options });
    stream.on('error', () => {});
    return stream;
  }

  async ask(authority: string): Promise<Answer & { readonly stream: ClientHttp2Stream }> {
    const stream = await this.connect(authority);
    return { ...(await answerOf(stream)), stream };
  }

  async lookUp(name: string, type: string): Promise<Answer & { readonly packet: Packet }> {
    const query = encode({ type: 'query', id: 7, flags: 0x0100, questions: [{ type: type as never, name }] });
    const { body, ...answer } = await this.post(query);
    return { ...answer, packet: decode(body) };
  }

  /** @param body undefined: nothing is sent, and the stream stays open */
  async post(body: Buffer | undefined): Promise<Answer & { readonly body: Buffer }> {
    const session = await this.session();
    const stream = session.request({
      ':method': 'POST',
      ':path': '/dns-query',
      'content-type': 'application/dns-message',
    });
    stream.on('error', () => {});
    const answered = answerOf(stream);
    if (body !== undefined) stream.end(body);
    const answer = await answered;
    return { ...answer, body: await bytesOf(stream) };
  }

  async close(): Promise<void> {
    for (const channel of this.channels) channel.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#directory, { recursive: true });
  }
}

/** Status 0: closed without an answer. */
export function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve) => {
    stream.once('response', (headers) =>
      resolve({
        status: Number(headers[':status']),
        reason: headers['instavm-reason'] as string | undefined,
        rule: headers['instavm-rule'] as string | undefined,
      }),
    );
    stream.once('close', () => resolve({ status: 0, reason: undefined, rule: undefined }));
  });
}

/** RST_STREAM and nothing before it, as the agent does; Node's `close()` would send END_STREAM first. */
export const resetStream = (stream: ClientHttp2Stream): void => void addAbortSignal(AbortSignal.abort(), stream);

/** How the other side ends the stream; reading it is left to the caller. */
export function endOf(stream: ClientHttp2Stream): Promise<'ended' | 'reset'> {
  return new Promise((resolve) => {
    stream.once('end', () => resolve(stream.rstCode === constants.NGHTTP2_NO_ERROR ? 'ended' : 'reset'));
    stream.once('close', () => resolve('reset'));
  });
}

/** All that comes until the end, or until a reset. */
export async function bytesOf(stream: ClientHttp2Stream | Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece)).resume();
  if (!stream.destroyed) await new Promise<void>((resolve) => stream.once('end', resolve).once('close', resolve));
  return Buffer.concat(pieces);
}
