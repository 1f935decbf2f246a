/**
 * A gateway for tests of the guest's network: speaks the egress channel as the daemon does, allows everything, and lets the port decide what
 * happens ({@link BEHAVIOURS}). Names decide what DNS says: `nx…` does not exist, `denied…` no rule allows, `v4…` has no IPv6 address.
 */
import { createHash } from 'node:crypto';
import {
  constants,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import { synchronize } from '@instavm/agent-client';

export const DOWNLOAD_BYTES = 24 * 1024 * 1024;
const CHUNK = Buffer.alloc(256 * 1024, 'instavm');
/** Of what `DOWNLOAD` sends. */
export const DOWNLOAD_SHA256 = sha256(Array.from({ length: DOWNLOAD_BYTES / CHUNK.length }, () => CHUNK));
/** A TXT record that needs TCP. */
const LARGE_TEXT = Array.from({ length: 8 }, () => Buffer.concat([Buffer.from([200]), Buffer.alloc(200, 'x')]));

function sha256(chunks: readonly Buffer[]): string {
  const hash = createHash('sha256');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

const refuse = (status: number, reason: string) => (stream: ServerHttp2Stream) =>
  stream.respond({ ':status': status, 'instavm-reason': reason }, { endStream: true });

const BEHAVIOURS: Readonly<Record<number, (stream: ServerHttp2Stream, authority: string) => void>> = {
  /** Sends back what it gets. */
  7: (stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  },
  /** Answers with the digest of what it got, once the program has ended its side. */
  9: (stream) => {
    stream.respond({ ':status': 200 });
    const hash = createHash('sha256');
    stream.on('data', (chunk: Buffer) => hash.update(chunk)).on('end', () => stream.end(hash.digest('hex')));
  },
  /** Downloads. */
  19: (stream) => {
    stream.respond({ ':status': 200 });
    stream.resume();
    let left = DOWNLOAD_BYTES;
    const more = (): void => {
      for (; left > 0; left -= CHUNK.length) {
        if (!stream.write(CHUNK)) {
          left -= CHUNK.length;
          stream.once('drain', more);
          return;
        }
      }
      stream.end();
    };
    more();
  },
  /** Never answers. */
  20: () => {},
  /** Resets after the first byte that it gets. */
  21: (stream) => {
    stream.respond({ ':status': 200 });
    stream.once('data', () => stream.destroy(new Error('reset')));
  },
  403: refuse(403, 'egress_denied'),
  429: refuse(429, 'too_many_connections'),
  502: refuse(502, 'connection_refused'),
  503: refuse(502, 'name_not_found'),
  504: refuse(504, 'connect_timeout'),
  505: refuse(502, 'unreachable'),
};

/** A web server that tells which name it was reached by. */
function webServer(stream: ServerHttp2Stream, authority: string): void {
  stream.respond({ ':status': 200 });
  stream.once('end', () => stream.end());
  stream.once('data', () => {
    const body = `reached ${authority}\n`;
    stream.end(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`);
  });
}

export class TestGateway {
  /** `host:port` of every CONNECT. */
  readonly asked: string[] = [];
  /** `name type` of every look-up. */
  readonly lookups: string[] = [];
  /** CONNECTs that the guest reset. */
  readonly cancelled: string[] = [];
  readonly #open = new Map<ServerHttp2Stream, string>();
  readonly #server: Http2Server;

  constructor() {
    this.#server = createServer({
      settings: { initialWindowSize: 1024 * 1024, maxFrameSize: 256 * 1024, maxConcurrentStreams: 1024 },
    });
    this.#server.on('session', (session) => {
      session.setLocalWindowSize(64 * 1024 * 1024);
      // A channel that closes is part of what is tested.
      session.on('error', () => {});
    });
    this.#server.on('stream', (stream, headers) => this.#serve(stream, headers));
  }

  /** What is connected now. */
  get open(): string[] {
    return [...this.#open.values()];
  }

  /** The SYNC exchange, then HTTP/2 with the guest as the client. */
  async serve(channel: Duplex): Promise<void> {
    channel.on('error', () => {});
    await synchronize(channel, 20_000);
    this.#server.emit('connection', channel);
  }

  #serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    // What the guest resets is looked at through `cancelled`.
    stream.on('error', () => {});
    if (headers[':method'] === 'POST') {
      const parts: Buffer[] = [];
      stream
        .on('data', (part: Buffer) => parts.push(part))
        .on('end', () => this.#resolve(stream, Buffer.concat(parts)));
      return;
    }
    const authority = String(headers[':authority']);
    this.asked.push(authority);
    this.#open.set(stream, authority);
    stream.once('close', () => {
      this.#open.delete(stream);
      if (stream.rstCode === constants.NGHTTP2_CANCEL) this.cancelled.push(authority);
    });
    (BEHAVIOURS[Number(authority.slice(authority.lastIndexOf(':') + 1))] ?? webServer)(stream, authority);
  }

  #resolve(stream: ServerHttp2Stream, query: Buffer): void {
    const { name, type, end } = question(query);
    this.lookups.push(`${name} ${type}`);
    const denied = name.startsWith('denied');
    const rcode = denied ? 5 : name.startsWith('nx') ? 3 : 0;
    const answers = rcode === 0 ? recordsOf(name, type) : [];
    const header = Buffer.from(query.subarray(0, 12));
    header.writeUInt16BE(0x8180 | rcode, 2);
    header.writeUInt16BE(answers.length, 6);
    header.fill(0, 8);
    stream.respond({
      ':status': 200,
      'content-type': 'application/dns-message',
      ...(denied ? { 'instavm-reason': 'egress_denied' } : {}),
    });
    stream.end(Buffer.concat([header, query.subarray(12, end), ...answers]));
  }
}

function question(query: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query.readUInt8(at); length > 0; length = query.readUInt8(at)) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.'), type: query.readUInt16BE(at + 1), end: at + 5 };
}

function recordsOf(name: string, type: number): Buffer[] {
  const record = (data: Buffer): Buffer => {
    // The owner is the question's name.
    const head = Buffer.from('c00c0000000100000e100000', 'hex');
    head.writeUInt16BE(type, 2);
    head.writeUInt16BE(data.length, 10);
    return Buffer.concat([head, data]);
  };
  if (type === 1) return [record(Buffer.from([203, 0, 113, 1]))];
  if (type === 28 && !name.startsWith('v4')) return [record(Buffer.from('20010db8000000000000000000000001', 'hex'))];
  if (type === 16) return name.startsWith('large') ? LARGE_TEXT.map(record) : [record(Buffer.from('\x05hello'))];
  return [];
}
