/** The check against a parser that is not ours: Node's (llhttp). What that one takes for a request to another host must not have passed. */
import { createServer, type IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { httpCheck } from '../src/index.ts';
import { converse, mutate, mutations } from './conversation.ts';

const NAME = 'allowed.example';
const FOREIGN = 'foreign.example';

/** @returns each request that a strict Node server sees in these bytes */
async function requestsSeenByNode(bytes: Buffer): Promise<IncomingMessage[]> {
  const seen: IncomingMessage[] = [];
  const server = createServer({ insecureHTTPParser: false, requireHostHeader: false }, (request, response) => {
    seen.push(request);
    request.resume();
    response.end();
  });
  server.on('connect', (request, socket) => {
    seen.push(request);
    socket.destroy();
  });
  const connection = new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() });
  const closed = new Promise<void>((resolve) => connection.once('close', resolve));
  server.emit('connection', connection);
  connection.push(bytes);
  connection.push(null);
  await closed;
  return seen;
}

function isForeign({ url = '', method, rawHeaders }: IncomingMessage): boolean {
  if (method === 'CONNECT') return true;
  const hosts = rawHeaders.filter((_, index) => rawHeaders[index - 1]?.toLowerCase() === 'host' && index % 2 === 1);
  const absolute = url.startsWith('/') || url === '*' ? [] : [URL.canParse(url) ? new URL(url).host : url];
  return [...hosts, ...absolute].some((host) => ![NAME, `${NAME}:80`].includes(host.toLowerCase()));
}

/** What servers are known to quarrel about, in pieces. */
const fragment = fc.constantFrom(
  ...[
    '\r\n',
    '\r\n',
    '\r\n',
    '\r\n\r\n',
    '\n',
    '\r',
    ' ',
    '\t',
    '\0',
    ':',
    ': ',
    ',',
    ';',
    '\x0b',
    '\xa0',
    '\r\n ',
    '\n\n',
  ],
  ...[
    'GET / HTTP/1.1',
    'POST / HTTP/1.1',
    'GET / HTTP/1.0',
    `GET http://${FOREIGN}/ HTTP/1.1`,
    `CONNECT ${FOREIGN}:80 HTTP/1.1`,
  ],
  ...[
    'Host',
    'host',
    `Host: ${NAME}`,
    `Host: ${NAME}`,
    `Host: ${FOREIGN}`,
    NAME,
    FOREIGN,
    `\r\n${'Host'}: ${FOREIGN}\r\n`,
  ],
  ...[
    'Content-Length: 0',
    'Content-Length: 5',
    'Content-Length: 60',
    'Content-Length',
    '0',
    '5',
    '5\r\nabcde\r\n',
    '0\r\n\r\n',
    'ffffffffffffffff',
  ],
  ...[
    'Transfer-Encoding: chunked',
    'Transfer-Encoding',
    'chunked',
    'identity',
    'Upgrade: h2c',
    'Connection: Upgrade',
    'Expect: 100-continue',
  ],
);
const good = `POST /a HTTP/1.1\r\nHost: ${NAME}\r\nA: b\r\n`;
const spoof = `GET /s HTTP/1.1\r\nHost: ${FOREIGN}\r\n\r\n`;
const framings = [
  `Content-Length: ${spoof.length}\r\n\r\n${spoof}`,
  `Transfer-Encoding: chunked\r\n\r\n${spoof.length.toString(16)}\r\n${spoof}\r\n0\r\n\r\n`,
  `Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: ${spoof.length}\r\n\r\n${spoof}`,
  `\r\n${good}\r\n`,
];
const streams = {
  'requests with a request for another host in their body, changed at random': fc
    .tuple(fc.constantFrom(...framings), mutations)
    .map(([framing, changes]) => mutate(Buffer.from(`${good}${framing}${good}\r\n${spoof}`), changes)),
  'the same with pieces put into their heads': fc
    .tuple(fc.constantFrom(...framings), fc.array(fc.tuple(fc.nat(120), fragment), { minLength: 1, maxLength: 3 }))
    .map(([framing, pieces]) =>
      pieces.reduce((text, [at, piece]) => text.slice(0, at) + piece + text.slice(at), `${good}${framing}${good}\r\n`),
    )
    .map((text) => Buffer.from(text, 'latin1')),
  'headers put together from what servers quarrel about': fc
    .tuple(fc.array(fragment, { maxLength: 6 }), fc.constantFrom(...framings, ''), fc.array(fragment, { maxLength: 6 }))
    .map(([before, framing, after]) =>
      Buffer.from(`${good}${before.join('')}\r\n${framing}${after.join('')}${spoof}`, 'latin1'),
    ),
  'nothing but pieces': fc
    .array(fragment, { maxLength: 14 })
    .map((pieces) => Buffer.from(`GET / HTTP/1.1\r\n${pieces.join('')}\r\n\r\n`, 'latin1')),
};

test.each(Object.entries(streams))(
  '%s: Node sees no request for another host in what has passed',
  async (_, stream) => {
    let spoofsSeenUnchecked = 0;
    let requestsPassed = 0;
    await fc.assert(
      fc.asyncProperty(stream, async (bytes) => {
        // Halves, so that something has passed when the second one disagrees.
        const half = bytes.length >> 1;
        const { sent } = converse(httpCheck(NAME, 80), [bytes.subarray(0, half), bytes.subarray(half)]);
        const passed = await requestsSeenByNode(sent);
        expect(passed.filter(isForeign).map(({ url, rawHeaders }) => [url, rawHeaders])).toEqual([]);
        requestsPassed += passed.length;

        if ((await requestsSeenByNode(bytes)).some(isForeign)) spoofsSeenUnchecked += 1;
      }),
      { numRuns: 5_000 },
    );
    // The attempts were real: without the check Node serves them.
    expect(spoofsSeenUnchecked).toBeGreaterThan(0);
    expect(requestsPassed).toBeGreaterThan(0);
  },
);
