/** Tunnels through guests that keep to no contract: a scripted HTTP/2 server stands for the agent. */
import { once } from 'node:events';
import { constants, createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { AgentClient } from '@instavm/agent-client';
import { afterEach, describe, expect, it } from 'vitest';
import { exchanged } from './exchanged.ts';

const DEADLINE_MS = 10_000;
const PORT = 8000;

type Guest = {
  readonly agent: AgentClient;
  readonly authorities: string[];
  /** Each CONNECT, as it comes. */
  next(): Promise<ServerHttp2Stream>;
  vanish(): void;
};

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** @param answer sees every CONNECT first */
async function guest(answer: (stream: ServerHttp2Stream) => void): Promise<Guest> {
  const server: Http2Server = createServer({ maxSessionMemory: 1_000 });
  const authorities: string[] = [];
  const streams: ServerHttp2Stream[] = [];
  const waiting: ((stream: ServerHttp2Stream) => void)[] = [];
  let session: ServerHttp2Session | undefined;
  server.on('session', (opened) => {
    session = opened;
  });
  server.on('sessionError', () => {});
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    authorities.push(`${headers[':method']} ${headers[':authority']}`);
    const waiter = waiting.shift();
    if (waiter === undefined) streams.push(stream);
    else waiter(stream);
    answer(stream);
  });
  const agent = await AgentClient.open(await exchanged(server), DEADLINE_MS);
  closers.push(() => agent.close());
  return {
    agent,
    authorities,
    next: () =>
      new Promise((resolve) => {
        const stream = streams.shift();
        if (stream === undefined) waiting.push(resolve);
        else resolve(stream);
      }),
    vanish: () => session?.socket?.destroy(),
  };
}

const open = ({ agent }: Guest, deadlineMs = DEADLINE_MS, signal?: AbortSignal): Promise<Duplex> =>
  agent.tunnel(PORT, { deadlineMs, ...(signal === undefined ? {} : { signal }) });
const grant = (stream: ServerHttp2Stream): void => stream.respond({ ':status': 200 });

describe('a tunnel', () => {
  it('asks for a port of localhost, and hands over what the program says at once', async () => {
    const other = await guest((stream) => {
      grant(stream);
      stream.end('hello');
    });
    expect(await text(await open(other))).toBe('hello');
    expect(other.authorities).toEqual([`CONNECT localhost:${PORT}`]);
  });

  const refusals = [
    [502, 'connection_refused', 'port_refused'],
    [504, 'connect_timeout', 'deadline'],
    [429, 'too_many_tunnels', 'too_many_tunnels'],
    [400, 'invalid_request', 'protocol'],
    [502, 'toString', 'protocol'],
    [204, undefined, 'protocol'],
  ] as const;
  it.each(refusals)('is refused with %i %s: %s', async (status, word, reason) => {
    const other = await guest((stream) =>
      stream.respond({ ':status': status, ...(word === undefined ? {} : { 'instavm-reason': word }) }),
    );
    await expect(open(other)).rejects.toMatchObject({ reason });
  });

  it('is given up when nobody answers in time, or by its signal, and the guest hears of it', async () => {
    const other = await guest(() => {});
    const hung = other.next();
    await expect(open(other, 50)).rejects.toMatchObject({ reason: 'deadline' });
    await aborted(await hung);

    const giveUp = new AbortController();
    const attempt = open(other, DEADLINE_MS, giveUp.signal);
    const stream = await other.next();
    giveUp.abort();
    await expect(attempt).rejects.toMatchObject({ reason: 'cancelled' });
    await aborted(stream);
  });

  it('carries what is written together with empty writes, as Node’s HTTP client does at the end of each request', async () => {
    const other = await guest(grant);
    const tunnel = await open(other);
    const heard = text(await other.next());
    const written: string[] = [];
    tunnel.cork();
    tunnel.write('', 'latin1');
    tunnel.write('POST / HTTP/1.1\r\n', 'latin1', () => written.push('head'));
    tunnel.write(Buffer.from('{}'));
    tunnel.write('', 'latin1', () => written.push('end'));
    tunnel.uncork();
    await new Promise((resolve) => setImmediate(resolve));
    tunnel.cork();
    tunnel.write('');
    tunnel.write('');
    tunnel.uncork();
    tunnel.end();
    expect(await heard).toBe('POST / HTTP/1.1\r\n{}');
    expect(written).toEqual(['head', 'end']);
  });

  it('carries what others do not read for long: together they may hold more than a connection has room for', async () => {
    const window = 256 * 1024;
    const other = await guest((stream) => {
      stream.respond({ ':status': 200 });
      stream.write(Buffer.alloc(2 * window));
    });
    const stalled: Duplex[] = [];
    while (stalled.length * window <= 64 * 1024 * 1024) stalled.push(await open(other));
    const full = (tunnel: Duplex): boolean => {
      tunnel.read(0);
      return tunnel.readableLength >= window;
    };
    await expect.poll(() => stalled.every(full)).toBe(true);
    const tunnel = await open(other);
    expect(((await once(tunnel, 'data')) as [Buffer])[0].length).toBeGreaterThan(0);
    for (const each of stalled) each.destroy();
  });

  it('is not ended by the signal of the attempt that opened it', async () => {
    const other = await guest(grant);
    const giveUp = new AbortController();
    const tunnel = await open(other, DEADLINE_MS, giveUp.signal);
    giveUp.abort();
    const stream = await other.next();
    stream.end('still here');
    expect(await text(tunnel)).toBe('still here');
  });

  it('fails by name when it is reset before an answer, or the channel is lost before or after one', async () => {
    const silent = await guest((stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    await expect(open(silent)).rejects.toMatchObject({ reason: 'protocol' });

    const other = await guest(() => {});
    const attempt = open(other);
    await other.next();
    other.vanish();
    await expect(attempt).rejects.toMatchObject({ reason: 'channel_lost' });
    await other.agent.closed;
    await expect(open(other)).rejects.toMatchObject({ reason: 'channel_lost' });

    const granted = await guest(grant);
    const tunnel = await open(granted);
    granted.vanish();
    await expect(once(tunnel.resume(), 'end')).rejects.toMatchObject({ reason: 'channel_lost' });
  });

  it.each([
    ['CANCEL', constants.NGHTTP2_CANCEL],
    ['CONNECT_ERROR', constants.NGHTTP2_CONNECT_ERROR],
  ])('that the guest resets with %s fails after what came before, without an end', async (_name, code) => {
    const other = await guest((stream) => {
      grant(stream);
      stream.write('some');
    });
    const tunnel = await open(other);
    const stream = await other.next();
    const heard: string[] = [];
    for (const event of ['data', 'end', 'error', 'close']) tunnel.on(event, () => heard.push(event));
    await once(tunnel, 'data');
    // As the agent does: Node's own close() would end the stream first.
    resetAlone(stream, code);
    await expect(once(tunnel, 'end')).rejects.toMatchObject({ reason: 'connection_reset' });
    if (!tunnel.closed) await once(tunnel, 'close');
    expect(heard).toEqual(['data', 'error', 'close']);
  });

  it('that is destroyed reaches the guest as a reset, never as an end, though nothing listens for its errors', async () => {
    const other = await guest(grant);
    for (const error of [undefined, new Error('the browser went away')]) {
      const tunnel = await open(other);
      const stream = await other.next();
      let isEnded = false;
      stream.resume().on('end', () => {
        isEnded = true;
      });
      tunnel.write('half of it');
      tunnel.destroy(error);
      await new Promise((resolve) => stream.once('close', resolve));
      expect([stream.aborted, isEnded, stream.rstCode]).toEqual([true, false, constants.NGHTTP2_INTERNAL_ERROR]);
    }
  });
});

/** The guest may hear of a request and of its end at once. */
async function aborted(stream: ServerHttp2Stream): Promise<void> {
  if (!stream.aborted) await once(stream, 'aborted');
}

/** A reset with this code and nothing before it. */
function resetAlone(stream: ServerHttp2Stream, code: number): void {
  const end = stream.end;
  stream.end = () => stream;
  stream.close(code);
  stream.end = end;
}
