/** A guest that means harm may break its own network, and nothing else. */
import { once } from 'node:events';
import { constants } from 'node:http2';
import type { Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CONTINUATION,
  connectFrame,
  DATA,
  END_HEADERS,
  frame,
  HEADERS,
  HELLO,
  headerBlock,
  RST_STREAM,
} from './support/frames.ts';
import { answerOf, Guest, resetStream } from './support/guest.ts';
import { echo, listen, PUBLIC, startRig, until } from './support/rig.ts';

const LOCAL = { allowedCidrs: ['127.0.1.0/24'] };
const MEGABYTE = 1024 * 1024;

/** A guest without an HTTP/2 client: `say` is told each channel. What the gateway answers is thrown away. */
const rawGuest = (say: (channel: Socket) => void): Promise<Guest> =>
  Guest.start((channel) => {
    channel.resume();
    say(channel);
  });

const written = (channel: Socket, bytes: Buffer): Promise<void> =>
  new Promise((resolve) => void channel.write(bytes, () => resolve()));

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
/** In buffers, without those that nobody refers to any more. */
function keptBytes(): number {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

describe('a guest that does not speak HTTP/2', () => {
  const NAME = Buffer.from('x'.repeat(100));
  it.each([
    ['garbage', Buffer.from('GET / HTTP/1.1\r\nHost: gateway\r\n\r\n')],
    ['noise', Buffer.alloc(100_000, 0xa5)],
    ['a frame longer than allowed', Buffer.concat([HELLO, Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])])],
    [
      'headers that cannot be decompressed',
      Buffer.concat([HELLO, frame(HEADERS, END_HEADERS, 1, Buffer.alloc(50, 0xff))]),
    ],
    ['data of a stream that is not open', Buffer.concat([HELLO, frame(DATA, 0, 1, Buffer.from('x'))])],
    [
      'endless continuations of headers',
      Buffer.concat([
        HELLO,
        frame(HEADERS, 0, 1),
        ...Array.from({ length: 5_000 }, () => frame(CONTINUATION, 0, 1, NAME)),
      ]),
    ],
    ['a flood of settings', Buffer.concat([HELLO, ...Array.from({ length: 20_000 }, () => frame(4, 0, 0))])],
  ])('loses the channel after %s, and it is opened again', async (_what, bytes) => {
    const guest = await rawGuest((channel) => channel.write(bytes));
    const { records } = await startRig({ guest, policy: LOCAL });
    await until(() => guest.opened >= 2);
    expect(records).toEqual([]);
  });

  it('is left alone for longer each time', async () => {
    const openedAt: number[] = [];
    const guest = await rawGuest((channel) => {
      openedAt.push(performance.now());
      channel.destroy();
    });
    const { pauses } = await startRig({ guest });
    await until(() => openedAt.length >= 5);
    expect(pauses.slice(0, 4)).toEqual([50, 100, 200, 400]);
    expect((openedAt[4] ?? 0) - (openedAt[3] ?? 0)).toBeGreaterThan(300);
  });

  it('cannot make the gateway keep more than it sends by wrapping single bytes into frames of no use', async () => {
    const channel = Promise.withResolvers<Socket>();
    const guest = await rawGuest(channel.resolve);
    const { dns } = await startRig({ guest, policy: { allowedDomains: ['slow.test'] } });
    dns.zones.set('slow.test', 'silent');
    const socket = await channel.promise;
    await written(socket, Buffer.concat([HELLO, connectFrame(1, 'slow.test:443')]));
    const before = keptBytes();
    // WINDOW_UPDATE of the connection: always allowed, never limited.
    const useless = Buffer.concat(Array.from({ length: 4_900 }, () => frame(8, 0, 0, Buffer.from([0, 0, 0, 1]))));
    const piece = Buffer.concat([frame(DATA, 0, 1, Buffer.from('x')), useless]);
    for (let sent = 0; sent < 4_000; sent++) await written(socket, piece);
    expect(socket.destroyed).toBe(false);
    expect(keptBytes() - before).toBeLessThan(120 * MEGABYTE);
  });
});

describe('a request', () => {
  it.each([
    { ':method': 'GET', ':path': '/' },
    { ':method': 'POST', ':path': '/dns-queries' },
    { ':method': 'BREW', ':path': '/dns-query' },
  ])('that is none of the two is not found: %o', async (headers) => {
    const { guest } = await startRig({ policy: LOCAL });
    const session = await guest.session();
    const stream = session.request(headers, { endStream: true });
    expect(await answerOf(stream)).toMatchObject({ status: 404, reason: 'unknown_request' });
  });

  it.each([
    ['without authority', [[':method', 'CONNECT']]],
    [
      'with a path',
      [
        [':method', 'CONNECT'],
        [':authority', 'a.test:1'],
        [':path', '/'],
        [':scheme', 'http'],
      ],
    ],
    [
      'with upper-case names',
      [
        [':method', 'CONNECT'],
        [':authority', 'a.test:1'],
        ['Upper', 'x'],
      ],
    ],
    [
      'with too many headers',
      [[':method', 'CONNECT'], [':authority', 'a.test:1'], ...Array.from({ length: 40 }, (_, at) => [`x${at}`, 'y'])],
    ],
    [
      'with 8 KiB of headers',
      [
        [':method', 'CONNECT'],
        [':authority', 'a.test:1'],
        ...Array.from({ length: 12 }, (_, at) => [`${at}`.repeat(40), 'y'.repeat(120)]),
        ...Array.from({ length: 90 }, () => ['z'.repeat(100), '']),
      ],
    ],
  ] as [string, [string, string][]][])('that is malformed is refused and does nothing: %s', async (_what, headers) => {
    const answers: Buffer[] = [];
    const guest = await Guest.start((channel) => {
      channel.on('data', (chunk: Buffer) => answers.push(chunk)).resume();
      channel.write(Buffer.concat([HELLO, frame(HEADERS, END_HEADERS, 1, headerBlock(headers))]));
    });
    const { records, dns, warnings } = await startRig({ guest, policy: { allowedDomains: ['a.test'] } });
    const reset = Buffer.from([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1]);
    const notFound = Buffer.from('unknown_request');
    await until(() => {
      const seen = Buffer.concat(answers);
      return seen.includes(reset) || seen.includes(notFound) || guest.opened > 1;
    });
    expect(records).toEqual([]);
    expect(dns.queries).toEqual([]);
    expect(warnings).toEqual([]);
  });

  it('for an arbitrary authority never crashes and never dials, and only a well-formed one is judged', async () => {
    const { port, sockets } = await listen(echo, '127.0.0.1');
    const { guest, records, dns, warnings } = await startRig({ policy: LOCAL });
    const session = await guest.session();
    const nearly = fc
      .tuple(
        fc.constantFrom(
          '127.0.0.1',
          '127.1',
          '0x7f.1',
          '2130706433',
          '[::1]',
          '[::ffff:127.0.0.1]',
          '::1',
          'localhost',
          '127.0.0.1.',
          '%31',
          '',
        ),
        fc.constantFrom(`:${port}`, ':', ':0', ':65536', `:0${port}`, `:+${port}`, ''),
        fc.constantFrom('', '.', '%00'),
      )
      .map(([host, after, between]) => `${host}${between}${after}`)
      .filter((text) => text !== '');
    // Of what HTTP/2 lets through; the next test has the rest.
    const unit = fc.constantFrom(..."!$%&'()*+,-.:;=[]_~09afzAFZ");
    const authority = fc.oneof(nearly, fc.string({ unit, minLength: 1, maxLength: 300 }), fc.webAuthority());
    await fc.assert(
      fc.asyncProperty(authority, async (text) => {
        const stream = session.request({ ':method': 'CONNECT', ':authority': text }, { endStream: false });
        stream.on('error', () => {});
        expect([400, 403, 404, 502]).toContain((await answerOf(stream)).status);
        resetStream(stream);
      }),
      { numRuns: 300 },
    );
    expect(sockets.size).toBe(0);
    expect(session.closed).toBe(false);
    expect(records.every(({ outcome }) => outcome !== 'open')).toBe(true);
    expect(dns.queries.length).toBeLessThan(2_000);
    expect(warnings).toEqual([]);
  });
});

describe('an authority that HTTP/2 itself forbids', () => {
  it('never crashes and never dials, and costs the channel when there are many', async () => {
    const texts = fc.sample(fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }), 500);
    const all = texts.map((text, at) => connectFrame(at * 2 + 1, Buffer.from(text).toString('latin1').slice(0, 120)));
    const guest = await rawGuest((channel) => channel.write(Buffer.concat([HELLO, ...all])));
    const { records, dns, warnings } = await startRig({ guest, policy: LOCAL });
    await until(() => guest.opened >= 3);
    expect(records.every(({ outcome }) => outcome !== 'open')).toBe(true);
    expect(dns.queries.length).toBeLessThan(100);
    expect(warnings).toEqual([]);
  });
});

describe('many streams at once', () => {
  it('beyond the agreed number are refused, the others work, and nothing is left of them', async () => {
    const { port, sockets } = await listen(echo);
    const { guest, records, ends } = await startRig({ policy: LOCAL, maxConnections: 50 });
    const session = await guest.session();
    await until(() => session.remoteSettings.maxConcurrentStreams === 1088);
    const streams = await Promise.all(Array.from({ length: 2_000 }, () => guest.connect(`${PUBLIC}:${port}`)));
    const answers = await Promise.all(streams.map(answerOf));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(50);
    expect(answers.filter(({ status }) => status === 429).length).toBeGreaterThan(900);
    for (const stream of streams) resetStream(stream);
    await until(() => sockets.size === 0 && ends().length === records.length - 50);
    expect((await guest.ask(`${PUBLIC}:${port}`)).status).toBe(200);
  });

  it('sent by a guest that ignores the agreed number end its channel, or are refused', async () => {
    const { port, sockets } = await listen(echo);
    const all = Buffer.concat(Array.from({ length: 5_000 }, (_, at) => connectFrame(at * 2 + 1, `${PUBLIC}:${port}`)));
    let first = true;
    const guest = await rawGuest((channel) => {
      if (!first) return;
      first = false;
      channel.write(Buffer.concat([HELLO, frame(4, 1, 0), all]));
    });
    await startRig({ guest, policy: LOCAL, maxConnections: 50 });
    await until(() => guest.opened >= 2);
    await until(() => sockets.size === 0);
  });

  it('opened and reset by the thousand dial no more than the limit at a time, and leave nothing', async () => {
    let most = 0;
    const { port, sockets } = await listen((socket) => {
      most = Math.max(most, sockets.size);
      echo(socket);
    });
    const { guest, warnings } = await startRig({ policy: LOCAL, maxConnections: 20 });
    const session = await guest.session();
    for (let round = 0; round < 10; round++) {
      for (let at = 0; at < 500; at++) resetStream(await guest.connect(`${PUBLIC}:${port}`));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => sockets.size === 0);
    expect(most).toBeLessThanOrEqual(40);
    expect(session.destroyed).toBe(false);
    expect((await guest.ask(`${PUBLIC}:${port}`)).status).toBe(200);
    expect(warnings).toEqual([]);
  });

  it('each stalled in the middle of an upload stay within their windows', async () => {
    const { port } = await listen((socket) => void socket.pause());
    const { guest, ends } = await startRig({ policy: LOCAL });
    const streams = await Promise.all(Array.from({ length: 30 }, () => guest.connect(`${PUBLIC}:${port}`)));
    const piece = Buffer.alloc(MEGABYTE);
    const errors: Error[] = [];
    let taken = 0;
    for (const stream of streams)
      for (let at = 0; at < 24; at++)
        stream.write(piece, (error) => {
          if (error) errors.push(error);
          else taken += piece.length;
        });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(errors[0]).toBeUndefined();
    expect(ends()).toEqual([]);
    // 720 MB were offered. The kernel's buffers of each connection take some, the gateway a window.
    expect(taken).toBeLessThan(420 * MEGABYTE);
  });
});

describe('the channel', () => {
  it('that drops takes its connections with it, is opened again, and works', async () => {
    const { port, sockets } = await listen(echo);
    const { guest, link, ends } = await startRig({ policy: LOCAL });
    await link.ready(60_000);
    expect((await guest.ask(`${PUBLIC}:${port}`)).status).toBe(200);
    for (const channel of guest.channels) channel.destroy();
    await until(() => sockets.size === 0 && ends().length === 1);
    expect(ends()).toMatchObject([{ outcome: 'failed', reason: 'reset by the sandbox' }]);
    await until(() => guest.opened === 2);
    expect((await guest.ask(`${PUBLIC}:${port}`)).status).toBe(200);
  });

  it('is opened again without growing pauses when each drop is forgiven', async () => {
    const { guest, link, pauses } = await startRig({ policy: LOCAL });
    await link.ready(60_000);
    for (let drops = 1; drops <= 8; drops++) {
      for (const channel of guest.channels) channel.destroy();
      await until(() => guest.opened === drops + 1);
      link.forgive();
    }
    expect(pauses).toEqual(Array(8).fill(50));
  });

  it('that the guest says goodbye to is opened again', async () => {
    const { guest } = await startRig({ policy: LOCAL });
    const session = await guest.session();
    await once(session, 'remoteSettings').catch(() => {});
    session.goaway(constants.NGHTTP2_NO_ERROR);
    await until(() => guest.opened === 2);
  });

  it('that cannot be opened is tried again', async () => {
    const guest = await Guest.start();
    const open = guest.open;
    let failures = 3;
    Object.assign(guest, {
      open: async () => {
        if (failures-- > 0) throw new Error('no such channel yet');
        return open();
      },
    });
    const { link, warnings } = await startRig({ guest, policy: LOCAL });
    await link.ready(60_000);
    expect(guest.opened).toBe(1);
    expect(warnings).toHaveLength(3);
  });

  it('of a guest that never answers does not keep anybody waiting beyond the deadline', async () => {
    const { link } = await startRig({ guest: await rawGuest(() => {}) });
    // It would wait for ever.
    await link.ready(100);
  });

  it('that is closed leaves no connection, dials nothing any more, and is not opened again', async () => {
    const { port, sockets } = await listen(echo);
    const { guest, dns, link, records, ends } = await startRig({ policy: { ...LOCAL, allowedDomains: ['slow.test'] } });
    dns.zones.set('slow.test', 'silent');
    await Promise.all(Array.from({ length: 20 }, () => guest.ask(`${PUBLIC}:${port}`)));
    const waiting = await guest.connect('slow.test:443');
    await until(() => dns.queries.length > 0);
    link.close();
    link.close();
    await until(() => sockets.size === 0 && guest.channels.size === 0 && waiting.closed);
    expect(ends().filter(({ outcome }) => outcome === 'cut')).toHaveLength(20);
    expect(records.filter(({ outcome }) => outcome === 'open')).toHaveLength(20);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(guest.opened).toBe(1);
    await link.ready(60_000);
  });
});
