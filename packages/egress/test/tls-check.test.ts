import { type ConnectionOptions, connect, createServer, type TlsOptions } from 'node:tls';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { tlsCheck } from '../src/index.ts';
import { bytewise, converse, cuts, forwarded, mismatchOf, mutate, mutations, split } from './conversation.ts';
import {
  extension,
  GREASE_ECH,
  hello,
  helloMessage,
  nameEntry,
  pipeEnd,
  records,
  selfSigned,
  serverHello,
  sni,
} from './tls-handshakes.ts';

const NAME = 'allowed.example';
const OTHER = 'foreign.example';
const check = () => tlsCheck(NAME);
/** As many extensions as it takes to pass 16 KiB. */
const padding = (bytes: number): Buffer => extension(21, Buffer.alloc(bytes));

/** What a real client (OpenSSL) sends first. */
function clientHello(options: ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve) => connect({ socket: pipeEnd(resolve), ...options }));
}

describe('handshakes that agree pass unchanged', () => {
  test.each<[string, ConnectionOptions]>([
    ['TLS 1.3', { servername: NAME }],
    ['TLS 1.2', { servername: NAME, maxVersion: 'TLSv1.2' }],
    ['ALPN', { servername: NAME, ALPNProtocols: ['h2', 'http/1.1'] }],
    ['the name in another case', { servername: 'Allowed.EXAMPLE' }],
    ['no server name', {}],
  ])('a real client: %s', async (_, options) => {
    const bytes = await clientHello(options);
    expect(bytes[0]).toBe(0x16);
    expect(converse(check(), bytewise(bytes))).toEqual({ sent: bytes, mismatch: undefined });
    if (options.servername) expect(converse(tlsCheck('else.example'), [bytes]).mismatch).toContain(options.servername);
  });

  test.each<[string, Buffer]>([
    ['one record', hello(sni(NAME))],
    ['records of one byte', records(helloMessage([sni(NAME)]), 1)],
    ['no extensions at all', records(helloMessage(undefined))],
    ['no server name', hello(padding(3))],
    ['ECH (GREASE or not) with the name outside', hello(GREASE_ECH, sni(NAME))],
    ['a large hello', hello(sni(NAME), padding(15_000))],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0binary')],
    ['HTTP/1 for the name', Buffer.from(`SEARCH / HTTP/1.1\r\nHost: ${NAME}:443\r\n\r\n`)],
    ['nothing', Buffer.alloc(0)],
  ])('%s', (_, bytes) => {
    expect(converse(check(), [bytes])).toEqual({ sent: bytes, mismatch: undefined });
    expect(converse(check(), bytewise(bytes))).toEqual({ sent: bytes, mismatch: undefined });
  });
});

describe('handshakes that disagree or are crooked do not pass', () => {
  const message = helloMessage([sni(NAME)]);
  const cut = (name: Buffer): Buffer => hello(extension(0, name));
  test.each<[string, Buffer, RegExp]>([
    ['another name', hello(sni(OTHER)), /asks for "foreign\.example", but .* allowed for "allowed\.example"/],
    ['a subdomain', hello(sni(`www.${NAME}`)), /asks for/],
    ['a trailing dot', hello(sni(`${NAME}.`)), /asks for/],
    ['NUL behind the name', hello(sni(`${NAME}\0${OTHER}`)), /asks for "allowed\.example\?foreign/],
    ['two names', hello(sni(NAME, OTHER)), /several/],
    ['two extensions', hello(sni(NAME), sni(OTHER)), /extension 0 comes twice/],
    ['an empty name', hello(sni('')), /empty/],
    ['an empty list', hello(sni()), /add up/],
    ['an empty extension', cut(Buffer.alloc(0)), /add up/],
    ['another type of name', cut(Buffer.concat([Buffer.from([0, 18]), nameEntry(NAME, 1)])), /not a host name/],
    ['a list that is too long', cut(Buffer.concat([Buffer.from([0, 99]), nameEntry(NAME)])), /add up/],
    ['a list that is too short', cut(Buffer.concat([Buffer.from([0, 10]), nameEntry(NAME)])), /add up/],
    ['ECH without a name outside', hello(GREASE_ECH), /hides its server name/],
    ['bytes behind the extensions', records(helloMessage([sni(NAME)], Buffer.from('x'))), /add up/],
    [
      'a second message in the record',
      records(Buffer.concat([message, helloMessage([sni(OTHER)])])),
      /follows the ClientHello/,
    ],
    [
      'a record that interrupts',
      Buffer.concat([records(message.subarray(0, 20)), records(Buffer.from([1, 0]), 9, 0x15)]),
      /interrupts/,
    ],
    ['an empty record', Buffer.from([0x16, 3, 1, 0, 0]), /out of range/],
    ['an oversized record', Buffer.from([0x16, 3, 1, 0x40, 1]), /out of range/],
    ['another version', Buffer.from([0x16, 2, 0, 0, 9]), /version/],
    ['another message', records(Buffer.from([2, 0, 0, 0])), /does not begin/],
    [
      'an alert ahead',
      Buffer.concat([records(Buffer.from([1, 0]), 9, 0x15), hello(sni(OTHER))]),
      /does not speak HTTP\/1, TLS or SSH/,
    ],
    ['SSLv2', Buffer.from([0x80, 0x2e, 1, 3, 1, 0, 0x15]), /does not speak/],
    [
      'a hello of more than 16 KiB',
      hello(sni(NAME), padding(9_000), extension(22, Buffer.alloc(9_000))),
      /out of range|add up|more than|too long/,
    ],
    ['a long hello in records', records(helloMessage([sni(NAME), padding(16_400)]), 8_000), /too long/],
    ['too many records', records(helloMessage([sni(NAME), padding(8_000)]), 1), /more than 32768 bytes/],
    ['an end within the hello', hello(sni(NAME)).subarray(0, -1), /ended/],
    ['HTTP/1 for another name', Buffer.from(`GET / HTTP/1.1\r\nHost: ${OTHER}\r\n\r\n`), /Host header names/],
    [
      'HTTP/1 that begins like SSH',
      Buffer.from(`SSH-2.0-a / HTTP/1.1\r\nHost: ${OTHER}\r\n\r\n`),
      /neither TLS nor SSH/,
    ],
    ['SSH that never ends its line', Buffer.from(`SSH-2.0-${'a'.repeat(300)}`), /more than 255 bytes/],
    ['the header of a proxy', Buffer.from('PROXY TCP4 1.2.3.4 1.2.3.4 1 443\r\n'), /does not speak.*allow_https/],
  ])('%s', (_, bytes, sentence) => {
    const whole = converse(check(), [bytes]);
    expect(whole).toEqual({ sent: Buffer.alloc(0), mismatch: expect.stringMatching(sentence) });
    expect(converse(check(), bytewise(bytes))).toEqual(whole);
  });
});

describe('after the ClientHello', () => {
  const early = Buffer.concat([records(Buffer.from([1]), 9, 0x14), records(Buffer.from('early data'), 99, 0x17)]);
  const warning = records(Buffer.from([1, 112]), 9, 0x15);
  const asked = () => {
    const one = check();
    one.push(Buffer.concat([hello(sni(NAME)), early]));
    return one;
  };
  const answer = (one: ReturnType<typeof check>, ...bytes: Buffer[]): string =>
    bytewise(Buffer.concat(bytes))
      .map((byte) => forwarded(one.answered(byte)))
      .join('');

  test('early data waits for the server, then everything passes', () => {
    const one = asked();
    expect(answer(one, warning, serverHello(false))).toBe(early.toString('latin1'));
    expect(forwarded(one.push(hello(sni(OTHER))))).toContain(OTHER);
  });

  test.each([Buffer.from('HTTP/1.1 400 Bad Request\r\n'), records(Buffer.from([11, 0, 0, 0]))])(
    'a server that answers otherwise ends the wait',
    (bytes) => {
      expect(answer(asked(), bytes)).toBe(early.toString('latin1'));
    },
  );

  test('after a HelloRetryRequest the second ClientHello is checked as well, in any chunks', () => {
    for (const second of [hello(sni(NAME)), records(helloMessage([sni(NAME)]), 7)]) {
      const one = asked();
      expect(answer(one, warning, serverHello(true))).toBe(early.toString('latin1'));
      const flight = Buffer.concat([early, second, Buffer.from('anything')]);
      expect(
        bytewise(flight)
          .map((byte) => forwarded(one.push(byte)))
          .join(''),
      ).toBe(flight.toString('latin1'));
    }
    const spoofed = asked();
    answer(spoofed, serverHello(true));
    expect(forwarded(spoofed.push(early))).toBe(early.toString('latin1'));
    expect(mismatchOf(spoofed.push(hello(sni(OTHER))))).toMatch(/asks for "foreign/);
  });

  test('a second ClientHello sent ahead of the HelloRetryRequest is checked too', () => {
    const one = check();
    one.push(Buffer.concat([hello(sni(NAME)), hello(sni(OTHER))]));
    expect(answer(one, serverHello(true).subarray(0, -17))).toBe('');
    expect(mismatchOf(one.answered(serverHello(true).subarray(-17)))).toMatch(/asks for "foreign/);
  });

  test('what waits is bounded, and does not survive the end of the program', () => {
    expect(mismatchOf(asked().push(Buffer.alloc(64 * 1024)))).toMatch(/more than 65536 bytes/);
    expect(mismatchOf(asked().end())).toMatch(/ended/);
  });
});

describe('a whole connection of real peers', () => {
  const identity = selfSigned();

  /** @returns what the client got back, and how many ClientHellos it took */
  async function exchange(server: TlsOptions, client: ConnectionOptions): Promise<{ echo: string; retried: boolean }> {
    const one = check();
    const forServer: Buffer[] = [];
    let retried = false;
    const clientEnd = pipeEnd((chunk) => relay(one.push(chunk)));
    const serverEnd = pipeEnd((chunk) => {
      retried ||= chunk.includes(Buffer.from('cf21ad74e59a6111', 'hex'));
      relay(one.answered(chunk));
      clientEnd.push(chunk);
    });
    const relay = (agreement: ReturnType<typeof one.push>): void => {
      if ('mismatch' in agreement) throw new Error(agreement.mismatch);
      for (const chunk of agreement.forward) {
        forServer.push(chunk);
        serverEnd.push(chunk);
      }
    };
    const listener = createServer({ ...identity, ...server }, (socket) => socket.pipe(socket));
    listener.emit('connection', serverEnd);
    const socket = connect({ socket: clientEnd, servername: NAME, rejectUnauthorized: false, ...client });
    socket.write('hello');
    const echo = await new Promise<string>((resolve, reject) =>
      socket.once('data', (data) => resolve(String(data))).once('error', reject),
    );
    socket.destroy();
    serverEnd.destroy();
    return { echo, retried };
  }

  test('TLS 1.3', async () => {
    expect(await exchange({}, {})).toEqual({ echo: 'hello', retried: false });
  });

  test('TLS 1.2', async () => {
    expect(await exchange({}, { maxVersion: 'TLSv1.2' })).toEqual({ echo: 'hello', retried: false });
  });

  test('TLS 1.3 with a HelloRetryRequest', async () => {
    expect(await exchange({ ecdhCurve: 'secp384r1' }, { ecdhCurve: 'X25519:secp384r1' })).toEqual({
      echo: 'hello',
      retried: true,
    });
  });
});

describe('for any bytes, in any chunks', () => {
  const flights = fc.constantFrom(
    hello(sni(NAME)),
    records(helloMessage([GREASE_ECH, sni(NAME)]), 30),
    hello(sni(OTHER)),
    Buffer.from('SSH-2.0-x\r\n'),
    Buffer.from(`GET / HTTP/1.1\r\nHost: ${NAME}\r\n\r\n`),
  );

  test('changes never throw, and give one verdict however the bytes are cut', () => {
    fc.assert(
      fc.property(flights, fc.option(mutations), cuts, (flight, changes, at) => {
        const bytes = changes ? mutate(flight, changes) : flight;
        const whole = converse(check(), [bytes], false);
        const parts = converse(check(), split(bytes, at), false);
        expect(parts.mismatch).toBe(whole.mismatch);
        if (whole.mismatch === undefined) expect(parts.sent).toEqual(whole.sent);
        expect(bytes.subarray(0, parts.sent.length).equals(parts.sent)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
  });

  test('arbitrary bytes never throw, as a hello or as anything', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (noise, framed) => {
        const bytes = framed
          ? records(Buffer.concat([Buffer.from([1, 0, 0, noise.length % 256]), noise]))
          : Buffer.from(noise);
        converse(check(), [bytes]);
      }),
      { numRuns: 3_000 },
    );
  });
});
