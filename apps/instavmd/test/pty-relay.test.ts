/** The relay of one terminal between a real WebSocket and a guest that says whatever the test wants. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { AgentError } from '@instavm/agent-client';
import { InstaVMError } from '@instavm/wire';
import fc from 'fast-check';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { PtyRelay, type PtyViewer } from '../src/ws/pty.ts';

type Request = { message: { case: string; value: unknown } };
type Event = { event: { case: string | undefined; value?: unknown } };
type Attach = (requests: AsyncIterable<Request>, options: { signal: AbortSignal }) => AsyncGenerator<Event>;

const log = pino({ level: 'silent' }) as never;
const event = (name: string | undefined, value?: unknown): Event => ({ event: { case: name, value } });
const opened = (offset = 0n): Event => event('opened', { offset });
const output = (offset: bigint, text: string): Event => event('output', { offset, data: Buffer.from(text) });
const exit = event('exit', { code: 0, signal: 0 });
const lost = (): never => {
  throw new AgentError('channel_lost', 'gone');
};

describe('the relay of a terminal', () => {
  let server: WebSocketServer;
  beforeAll(async () => {
    server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
  });
  afterAll(() => server.close());

  /** Each attachment is one call of `guests`, in order; the last one answers every further call. */
  const relay = async (
    guests: readonly Attach[],
    query: Partial<PtyViewer['query']> = {},
    whenAsked = async (_wake: string) => {},
  ) => {
    let calls = 0;
    const attach: Attach = (...call) => (guests[calls++] ?? (guests.at(-1) as Attach))(...call);
    const guest = async (wake: string) => {
      await whenAsked(wake);
      return { agent: { pty: { attach } } };
    };
    const nextState = (signal: AbortSignal) => once(signal, 'abort');
    const owner = { guest, nextState } as unknown as PtyViewer['owner'];
    const viewer = { owner, ptyId: 'p', query: { read_only: false, ack: false, ...query } };
    const attached = await PtyRelay.attach(viewer as PtyViewer, log);
    const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const frames: (string | Buffer)[] = [];
    client.on('message', (data: Buffer, isBinary) => frames.push(isBinary ? data : data.toString()));
    const [[socket]] = await Promise.all([once(server, 'connection'), once(client, 'open')]);
    const served = attached.serve(socket as WebSocket);
    const closed = once(client, 'close').then(([code, reason]) => ({ code, reason: String(reason) }));
    const bytes = (): string => Buffer.concat(frames.filter((frame) => typeof frame !== 'string')).toString();
    return { client, socket: socket as WebSocket, frames, bytes, closed, served, calls: () => calls };
  };

  it('goes on at its offset when the channel was lost, with what was typed meanwhile', async () => {
    let reattach: () => void = () => {};
    const mayReattach = new Promise<void>((resolve) => {
      reattach = resolve;
    });
    const offsets: unknown[] = [];
    const typed: string[] = [];
    const first: Attach = async function* () {
      yield opened(5n);
      yield output(5n, 'abc');
      lost();
    };
    const second: Attach = async function* (requests) {
      await mayReattach;
      const incoming = requests[Symbol.asyncIterator]();
      offsets.push((await incoming.next()).value.message.value);
      yield opened(8n);
      typed.push(String((await incoming.next()).value.message.value));
      yield output(8n, 'def');
      yield exit;
    };
    const { client, bytes, closed, calls } = await relay([first, second]);
    await expect.poll(calls).toBe(2);
    client.send(Buffer.from('typed'));
    client.ping();
    // It has been taken by then.
    await once(client, 'pong');
    reattach();
    expect((await closed).code).toBe(1000);
    expect([bytes(), offsets, typed]).toEqual([
      'abcdef',
      [expect.objectContaining({ offset: 8n, fromStart: false })],
      ['typed'],
    ]);
  });

  it('wakes a suspended sandbox for what is typed before it is known to be suspended', async () => {
    const asked: string[] = [];
    const { promise: known, resolve: isKnown } = Promise.withResolvers<void>();
    const typed: string[] = [];
    const suspended: Attach = async function* () {
      yield opened();
      lost();
    };
    const woken: Attach = async function* (requests) {
      const incoming = requests[Symbol.asyncIterator]();
      await incoming.next();
      yield opened();
      typed.push(String((await incoming.next()).value.message.value));
      yield exit;
    };
    const { client, closed } = await relay([suspended, woken], {}, async (wake) => {
      asked.push(wake);
      if (wake !== 'never') return;
      await known;
      throw new InstaVMError('sandbox_suspended', 'it is');
    });
    await expect.poll(() => asked).toEqual(['suspended', 'never']);
    client.send(Buffer.from('typed'));
    client.ping();
    // It has been taken by then.
    await once(client, 'pong');
    isKnown();
    expect((await closed).code).toBe(1000);
    expect([asked, typed]).toEqual([['suspended', 'never', 'suspended'], ['typed']]);
  });

  it('gives up on a channel that is lost again and again, and says so before output with 4502, after it with 1011', async () => {
    const silent: Attach = async function* () {
      yield opened();
      lost();
    };
    const spoke: Attach = async function* () {
      yield opened();
      yield output(0n, 'x');
      lost();
    };
    expect(await (await relay([silent])).closed).toEqual({ code: 4502, reason: 'guest_lost' });
    const later: Attach = async function* () {
      yield opened(1n);
      lost();
    };
    const { closed, calls } = await relay([spoke, later]);
    expect(await closed).toEqual({ code: 1011, reason: 'guest_lost' });
    expect(calls()).toBeLessThan(10);
  });

  it('acknowledges what the client has taken, in steps, unless the client does so itself', async () => {
    const piece = 'x'.repeat(60_000);
    const watched = (acks: bigint[]): Attach =>
      async function* (requests) {
        const incoming = requests[Symbol.asyncIterator]();
        await incoming.next();
        yield opened();
        for (let index = 0n; index < 4n; index++) yield output(index * 60_000n, piece);
        acks.push((await incoming.next()).value.message.value as bigint);
        yield exit;
      };
    const [own, clients]: [bigint[], bigint[]] = [[], []];
    expect((await (await relay([watched(own)])).closed).code).toBe(1000);
    expect(own).toEqual([120_000n]);
    const acking = await relay([watched(clients)], { ack: true });
    await expect.poll(() => acking.bytes().length).toBe(240_000);
    acking.client.send('{"type":"ack","offset":17}');
    await acking.closed;
    expect(clients).toEqual([17n]);
  });

  it('reads no more of a client whose frames nobody takes, of whatever kind they are', async () => {
    const busy: Attach = async function* (_requests, { signal }) {
      yield opened();
      await once(signal, 'abort');
    };
    for (const frame of ['{"type":"ack","offset":17}', '{"type":"resize","cols":80,"rows":24}', Buffer.of(7)]) {
      const { client, socket, served } = await relay([busy]);
      for (let count = 0; count < 8_000; count++) client.send(frame);
      await expect.poll(() => socket.isPaused).toBe(true);
      client.terminate();
      socket.terminate();
      await served;
    }
  });

  it.each([
    ['the program ended', exit],
    ['the terminal was resized', event('resized', { cols: 1, rows: 1 })],
  ])('ends with a client that leaves before it has read that %s', async (_what, last) => {
    const { promise: isServing, resolve: serving } = Promise.withResolvers<WebSocket>();
    const { promise: isTold, resolve: told } = Promise.withResolvers<void>();
    const flood: Attach = async function* (_requests, { signal }) {
      yield opened();
      const socket = await isServing;
      // Until so much waits for the client that what comes next would be waited for.
      for (let offset = 0n; socket.bufferedAmount < 1024 * 1024; offset += 60_000n)
        yield output(offset, 'x'.repeat(60_000));
      setImmediate(told);
      yield last;
      if (!signal.aborted) await once(signal, 'abort');
    };
    const { client, socket, served } = await relay([flood]);
    client.pause();
    serving(socket);
    await isTold;
    client.terminate();
    socket.terminate();
    await served;
    // A rejection that nobody catches is told by then, and fails the test.
    await turn();
  });

  it('leaves the guest when the client leaves', async () => {
    let cancelled = false;
    const endless: Attach = async function* (_requests, { signal }) {
      yield opened();
      await once(signal, 'abort');
      cancelled = true;
      lost();
    };
    const { client, served } = await relay([endless]);
    client.terminate();
    await served;
    expect(cancelled).toBe(true);
  });

  it('survives whatever a guest sends, and hands on nothing that cannot be', async () => {
    const number = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const anyEvent = fc.oneof(
      fc
        .tuple(fc.oneof(fc.bigInt({ min: 0n, max: 20n }), number), fc.uint8Array({ maxLength: 20 }))
        .map(([offset, data]) => event('output', { offset, data })),
      fc.constant(event('output', { offset: 0n, data: new Uint8Array(65_537) })),
      fc.record({ cols: fc.nat(), rows: fc.nat() }).map((size) => event('resized', size)),
      fc.record({ code: fc.integer(), signal: fc.integer() }).map((end) => event('exit', end)),
      number.map((offset) => opened(offset)),
      fc.constant(event(undefined)),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent, { maxLength: 12 }), async (events) => {
        const guest: Attach = async function* () {
          yield opened();
          yield* events;
        };
        const { frames, closed, served } = await relay([guest]);
        const { code } = await closed;
        await served;
        const exits = frames.filter((frame) => typeof frame === 'string' && JSON.parse(frame).type === 'exit');
        expect(exits.length).toBe(code === 1000 ? 1 : 0);
        expect([1000, 1011, 4502]).toContain(code);
        for (const frame of frames) expect(frame.length).toBeLessThanOrEqual(65_536);
      }),
      { numRuns: 150 },
    );
  });
});
