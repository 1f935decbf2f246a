import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { httpCheck } from '../src/index.ts';
import { bytewise, converse, cuts, forwarded, mismatchOf, mutate, mutations, split } from './conversation.ts';

const NAME = 'allowed.example';
const check = () => httpCheck(NAME, 80);
const lines = (...parts: string[]): Buffer => Buffer.from(`${parts.join('\r\n')}\r\n\r\n`, 'latin1');
const get = (host: string, ...more: string[]): Buffer => lines('GET / HTTP/1.1', `Host: ${host}`, ...more);
const post = (framing: string, body: string): Buffer =>
  Buffer.concat([lines('POST /p HTTP/1.1', `Host: ${NAME}`, ...framing.split('|')), Buffer.from(body, 'latin1')]);
const HELD_LIMIT = 64 * 1024;

describe('requests that agree pass unchanged', () => {
  test.each<[string, Buffer]>([
    ['the name', get(NAME)],
    ['the name in another case', get('ALLOWED.Example')],
    ['the name with its port', get(`${NAME}:80`)],
    ['white space around the host', lines('GET / HTTP/1.1', `Host: \t ${NAME} \t`)],
    ['an absolute target', lines(`GET HTTP://${NAME}/a?b HTTP/1.1`, `Host: ${NAME}`)],
    ['an absolute target with a query only', lines(`GET http://${NAME}:80?http://b HTTP/1.1`, `Host: ${NAME}`)],
    ['OPTIONS *', lines('OPTIONS * HTTP/1.1', `Host: ${NAME}`)],
    ['HTTP/1.0 without Host', lines('GET / HTTP/1.0')],
    ['an empty header, and bytes beyond ASCII', get(NAME, 'X-Empty:', 'X-File: caf\xc3\xa9')],
    ['several requests at once', Buffer.concat([get(NAME), get(NAME), get(`${NAME}:80`)])],
    ['a body by length', Buffer.concat([post('Content-Length: 5', 'ab\n\r\0'), get(NAME)])],
    [
      'a body that looks like a request for another host',
      post('Content-Length: 40', 'GET / HTTP/1.1\r\nHost: other.example\r\n\r\nx'),
    ],
    [
      'a body in chunks',
      Buffer.concat([post('Transfer-Encoding: Chunked', '3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n'), get(NAME)]),
    ],
    ['trailers', Buffer.concat([post('Transfer-Encoding: chunked', '1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n'), get(NAME)])],
    ['h2c offered, as Java does each time', Buffer.concat([get(NAME, 'Upgrade: h2c'), get(NAME, 'Upgrade: h2c')])],
    ['nothing at all', Buffer.alloc(0)],
  ])('%s', (_, bytes) => {
    expect(converse(check(), [bytes])).toEqual({ sent: bytes, mismatch: undefined });
    expect(converse(check(), bytewise(bytes))).toEqual({ sent: bytes, mismatch: undefined });
  });
});

describe('requests that disagree, or that two servers could read differently, do not pass', () => {
  const smuggled = get('other.example').toString('latin1');
  test.each<[string, Buffer, RegExp]>([
    [
      'another host',
      get('other.example'),
      /Host header names "other\.example".*allowed for "allowed\.example" on port 80/,
    ],
    ['a subdomain', get(`www.${NAME}`), /names/],
    ['a trailing dot', get(`${NAME}.`), /names/],
    ['another port', get(`${NAME}:8080`), /names/],
    ['an empty port', get(`${NAME}:`), /names/],
    ['a port with a leading zero', get(`${NAME}:080`), /names/],
    ['user information', get(`${NAME}@other.example`), /names/],
    ['a list of hosts', get(`${NAME}, other.example`), /names/],
    ['a no-break space after the host', get(`${NAME}\xa0`), /names/],
    ['an empty Host', get(''), /names ""/],
    ['no Host', lines('GET / HTTP/1.1', 'A: b'), /no Host/],
    ['two Hosts', get(NAME, 'hOST: other.example'), /"host" twice/],
    ['two equal Hosts', get(NAME, `Host: ${NAME}`), /twice/],
    [
      'an absolute target of another host',
      lines('GET http://other.example/ HTTP/1.1', `Host: ${NAME}`),
      /target names "other/,
    ],
    [
      'an absolute target with user information',
      lines(`GET http://${NAME}@other.example/ HTTP/1.1`, `Host: ${NAME}`),
      /target/,
    ],
    ['a backslash in the authority', lines(`GET http://${NAME}\\@other.example/ HTTP/1.1`, `Host: ${NAME}`), /target/],
    ['an https target', lines(`GET https://${NAME}/ HTTP/1.1`, `Host: ${NAME}`), /not a path or an http URL/],
    ['an authority as target', lines('GET other.example:80 HTTP/1.1', `Host: ${NAME}`), /not a path/],
    ['CONNECT', lines('CONNECT other.example:80 HTTP/1.1', `Host: ${NAME}`), /tunnel/],
    ['connect in lower case', lines('connect other.example:80 HTTP/1.1', `Host: ${NAME}`), /tunnel/],
    ['HTTP/2 with prior knowledge', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), /HTTP\/2 without TLS/],
    ['a version in lower case', lines('GET / http/1.1', `Host: ${NAME}`), /does not speak HTTP\/1/],
    ['HTTP/1.2', lines('GET / HTTP/1.2', `Host: ${NAME}`), /does not speak/],
    ['HTTP/0.9', Buffer.from('GET /\r\n'), /does not speak/],
    ['two spaces in the request line', lines('GET  / HTTP/1.1', `Host: ${NAME}`), /does not speak/],
    ['an empty line ahead', Buffer.from(`\r\n${get(NAME)}`), /does not speak/],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'), /does not speak HTTP\/1 on port 80.*allow_http/],
    ['TLS', Buffer.from([0x16, 3, 1, 0, 5]), /does not speak HTTP\/1/],
    ['a space before the colon', lines('GET / HTTP/1.1', 'Host : other.example', `Host: ${NAME}`), /not a header/],
    ['a header without a name', get(NAME, ': x'), /not a header/],
    ['a header without a colon', get(NAME, 'Host'), /not a header/],
    ['a continued line', get(NAME, 'A: b', ' Host: other.example'), /not a header/],
    ['a bare LF', Buffer.from(`GET / HTTP/1.1\r\nHost: ${NAME}\nHost: other.example\r\n\r\n`), /LF alone/],
    ['a bare CR', get(NAME, 'A: b\rHost: other.example'), /not a header/],
    ['NUL in a value', get(NAME, 'A: b\0'), /not a header/],
    ['NUL in a name', get(NAME, 'A\0: b'), /not a header/],
    ['length and chunks', post('Content-Length: 5|Transfer-Encoding: chunked', '0\r\n\r\n'), /both/],
    ['two lengths', post('Content-Length: 0|Content-Length: 5', 'abcde'), /twice/],
    ['a list of lengths', post('Content-Length: 5, 5', 'abcde'), /Content-Length "5, 5"/],
    ['a signed length', post('Content-Length: +5', 'abcde'), /Content-Length/],
    ['a length in hexadecimal', post('Content-Length: 0x5', 'abcde'), /Content-Length/],
    ['an endless length', post(`Content-Length: ${'9'.repeat(16)}`, ''), /Content-Length/],
    ['a length spelt for CGI', post('Content_Length: 5', 'abcde'), /misspelt/],
    ['another coding', post('Transfer-Encoding: gzip, chunked', '0\r\n\r\n'), /ambiguous/],
    ['an obscured coding', post('Transfer-Encoding: xchunked', '0\r\n\r\n'), /ambiguous/],
    ['chunked twice', post('Transfer-Encoding: chunked|Transfer-Encoding: chunked', '0\r\n\r\n'), /twice/],
    ['chunks with HTTP/1.0', lines('POST / HTTP/1.0', 'Transfer-Encoding: chunked'), /ambiguous/],
    ['a chunk extension', post('Transfer-Encoding: chunked', '1;a=b\r\nx\r\n0\r\n\r\n'), /size of a chunk/],
    ['white space after a chunk size', post('Transfer-Encoding: chunked', '1 \r\nx\r\n0\r\n\r\n'), /size of a chunk/],
    ['a negative chunk size', post('Transfer-Encoding: chunked', '-1\r\nx'), /size of a chunk/],
    ['a chunk size that overflows 32 bits', post('Transfer-Encoding: chunked', '100000001\r\nx'), /size of a chunk/],
    ['a chunk ended by LF', post('Transfer-Encoding: chunked', '1\r\nx\n0\r\n\r\n'), /LF alone/],
    ['a chunk longer than its size', post('Transfer-Encoding: chunked', '1\r\nxy\r\n0\r\n\r\n'), /longer/],
    ['Host in a trailer', post('Transfer-Encoding: chunked', '0\r\nHost: other.example\r\n\r\n'), /trailer/],
    ['another host in a second request', Buffer.concat([get(NAME), get('other.example')]), /names/],
    ['another host after a body', post('Content-Length: 1', `a${smuggled}`), /names/],
    ['another host after chunks', post('Transfer-Encoding: chunked', `1\r\na\r\n0\r\n\r\n${smuggled}`), /names/],
    ['a WebSocket in a later request', Buffer.concat([get(NAME), get(NAME, 'Upgrade: websocket')]), /WebSocket/],
    ['an end within a head', Buffer.from(`GET / HTTP/1.1\r\nHost: ${NAME}\r\n`), /ended/],
    ['a head without end', Buffer.from(`GET / HTTP/1.1\r\nA: ${'a'.repeat(HELD_LIMIT)}`), /more than 65536 bytes/],
    ['headers without end', get(NAME, ...Array.from({ length: 20_000 }, () => 'A: b')), /more than 65536 bytes/],
  ])('%s', (_, bytes, sentence) => {
    const whole = converse(check(), [bytes]);
    expect(whole.mismatch).toMatch(sentence);
    const single = converse(check(), bytewise(bytes));
    expect(single.mismatch).toBe(whole.mismatch);
    expect(single.sent.toString('latin1')).not.toContain('other.example');
  });

  test('a mismatch stays, whatever comes after it', () => {
    const one = check();
    const first = mismatchOf(one.push(get('other.example')));
    expect(mismatchOf(one.push(get(NAME)))).toBe(first);
    expect(mismatchOf(one.answered(Buffer.from('HTTP/1.1 101 \r\n')))).toBe(first);
    expect(mismatchOf(one.end())).toBe(first);
  });

  test('text of the program cannot forge a line of the log', () => {
    expect(mismatchOf(check().push(get('\x80\x9b31m')))).toContain('"??31m"');
  });
});

describe('upgrades', () => {
  const upgrade = get(NAME, 'Connection: Upgrade', 'Upgrade: WebSocket');
  const frames = Buffer.from([0x81, 0x85, 1, 2, 3, 4, 5]);
  const asked = () => {
    const one = check();
    expect(forwarded(one.push(upgrade))).toBe(upgrade.toString());
    expect(forwarded(one.push(frames))).toBe('');
    return one;
  };

  test('an accepted WebSocket releases what waited, and passes for ever', () => {
    const one = asked();
    const answer = Buffer.from(
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n',
    );
    const released = bytewise(answer).map((byte) => forwarded(one.answered(byte)));
    expect(released.join('')).toBe(frames.toString('latin1'));
    expect(forwarded(one.push(get('other.example')))).toContain('other.example');
    expect(forwarded(one.end())).toBe('');
  });

  test.each([
    'HTTP/1.1 200 OK\r\n',
    'HTTP/1.1 1010\r\n',
    'HTTP/1.0 101 Odd\r\n',
    'HTTP/1.1 100 HTTP/1.1 101 \r\n\r\nHTTP/1.1 404\r\n',
    '101\r\n',
    'x'.repeat(99),
  ])('after %j it is HTTP/1 as before', (answer) => {
    expect(mismatchOf(asked().answered(Buffer.from(answer)))).toMatch(/does not speak HTTP\/1/);
    const one = check();
    one.push(upgrade);
    expect(forwarded(one.answered(Buffer.from(answer)))).toBe('');
    expect(forwarded(one.push(get(NAME)))).toBe(get(NAME).toString());
    expect(mismatchOf(one.push(get('other.example')))).toMatch(/names/);
  });

  test('101 within an interim answer, or before anyone asked, opens nothing', () => {
    const one = asked();
    expect(forwarded(one.answered(Buffer.from('HTTP/1.1 100 Continue\r\nHTTP/1.1 101 x\r\n')))).toBe('');
    const early = check();
    early.answered(Buffer.from('HTTP/1.1 101 \r\n\r\n'));
    expect(mismatchOf(early.push(upgrade))).toMatch(/WebSocket/);
  });

  test('another protocol than WebSocket does not pass, though the server accepts it', () => {
    for (const protocol of ['h2c', 'websocket, h2c', 'TLS/1.0']) {
      const one = check();
      one.push(get(NAME, `Upgrade: ${protocol}`));
      one.answered(Buffer.from('HTTP/1.1 101 \r\n\r\n'));
      expect(mismatchOf(one.push(Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')))).toMatch(/HTTP\/2/);
    }
  });

  test('what waits for the answer is bounded, and does not survive the end of the program', () => {
    expect(mismatchOf(asked().push(Buffer.alloc(HELD_LIMIT)))).toMatch(/ahead of the answer/);
    expect(mismatchOf(asked().end())).toMatch(/ended/);
  });
});

/** A model of what HTTP/1 clients send. `foreign` requests name another host in one of the places that count. */
const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,12}$/).map((name) => `X-${name}`);
const value = fc.stringMatching(/^[ -~\x80-\xff]{0,40}$/);
const body = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const chunked = fc.tuple(
  fc.array(
    body.filter((chunk) => chunk.length > 0),
    { maxLength: 4 },
  ),
  fc.array(fc.tuple(token, value), { maxLength: 2 }),
);
const request = fc
  .record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'M-SEARCH', 'DELETE'),
    target: fc.constantFrom('/', '/a?b=http://other.example/', `http://${NAME}/`, `http://${NAME}:80/x`),
    host: fc.constantFrom(NAME, NAME.toUpperCase(), `${NAME}:80`),
    headers: fc.array(fc.tuple(token, value), { maxLength: 5 }),
    content: fc.oneof(fc.constant(undefined), body, chunked),
  })
  .map(({ method, target, host, headers, content }) => {
    const head = [
      `${method} ${target} HTTP/1.1`,
      `Host: ${host}`,
      ...headers.map(([name, text]) => `${name}: ${text}`),
    ];
    if (content === undefined) return lines(...head);
    if (Buffer.isBuffer(content)) return Buffer.concat([lines(...head, `content-length:${content.length}`), content]);
    const [chunks, trailers] = content;
    const parts = chunks.flatMap((chunk) => [
      Buffer.from(`${chunk.length.toString(16)}\r\n`),
      chunk,
      Buffer.from('\r\n'),
    ]);
    const end = Buffer.from(`0\r\n${trailers.map(([name, text]) => `${name}:${text}\r\n`).join('')}\r\n`, 'latin1');
    return Buffer.concat([lines(...head, 'Transfer-Encoding:chunked'), ...parts, end]);
  });
const foreign = fc
  .constantFrom(
    get('foreign.example'),
    lines('GET http://foreign.example/ HTTP/1.1', `Host: ${NAME}`),
    get(NAME, 'Host: foreign.example'),
  )
  .map((bytes) => ({ bytes }));

describe('for any requests, in any chunks', () => {
  test('those of the allowed name pass byte for byte', () => {
    fc.assert(
      fc.property(fc.array(request, { maxLength: 6 }), cuts, (requests, at) => {
        const bytes = Buffer.concat(requests);
        expect(converse(check(), split(bytes, at))).toEqual({ sent: bytes, mismatch: undefined });
      }),
      { numRuns: 500 },
    );
  });

  test('one with a foreign host ends the connection before a byte of its head has passed', () => {
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 4 }),
        foreign,
        request,
        cuts,
        (before, { bytes: spoof }, after, at) => {
          const good = Buffer.concat(before);
          const { sent, mismatch } = converse(check(), split(Buffer.concat([good, spoof, after]), at));
          expect(mismatch).toBeDefined();
          expect(sent.equals(good.subarray(0, sent.length))).toBe(true);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('arbitrary changes never throw, and give one verdict however the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 3 }), mutations, cuts, (requests, changes, at) => {
        const bytes = mutate(Buffer.concat(requests), changes);
        const whole = converse(check(), [bytes]);
        const parts = converse(check(), split(bytes, at));
        expect(parts.mismatch).toBe(whole.mismatch);
        if (whole.mismatch === undefined) expect([whole.sent, parts.sent]).toEqual([bytes, bytes]);
        else expect(parts.sent.equals(bytes.subarray(0, parts.sent.length))).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  test('arbitrary bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void converse(check(), [Buffer.from(bytes)])),
      { numRuns: 2_000 },
    );
  });
});

test('a long head in single bytes, blanks included, costs linear time', () => {
  const bytes = get(NAME, `A: a${' '.repeat(60_000)}b`);
  const took = (times: number): number => {
    const start = performance.now();
    for (let count = 0; count < times; count++)
      expect(converse(check(), bytewise(bytes)).sent).toHaveLength(bytes.length);
    return performance.now() - start;
  };
  took(1);
  expect(took(5)).toBeLessThan(5_000); // about 50 ms; a quadratic one needs minutes
});
