/** What HTTP/2 can say and HTTP/1.1 to the service must not: a field with a line break becomes two, a wrong length a second request. */
import { once } from 'node:events';
import { connect as tlsConnect } from 'node:tls';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { askRaw } from './raw-http2.ts';
import { Stand } from './stand.ts';

const CRLF = '\r\n';
const SMUGGLED = `GET /smuggled HTTP/1.1${CRLF}Host: x${CRLF}${CRLF}`;

let stand: Stand;
let id: string;
let other: string;
let seen: string[] = [];

beforeAll(async () => {
  stand = await Stand.start();
  const listener = (
    request: import('node:http').IncomingMessage,
    response: import('node:http').ServerResponse,
  ): void => {
    seen.push(`${request.method} ${request.url} ${Object.keys(request.headers).join()}`);
    request.resume().on('end', () => response.end('ok'));
  };
  id = await stand.service('guarded', listener);
  other = await stand.service('other', listener);
});
beforeEach(() => {
  seen = [];
});
afterAll(() => stand.close());

type Fields = readonly (readonly [string, string])[];
const request = (changes: Readonly<Record<string, string>> = {}): [string, string][] =>
  Object.entries({
    ':method': 'GET',
    ':scheme': 'https',
    ':path': '/',
    ':authority': stand.authorityOf(id),
    ...changes,
  });

async function outcomeOf(fields: Fields, body?: string): Promise<string> {
  const options = { host: '127.0.0.1', port: stand.port, servername: stand.hostOf(id), ca: stand.ca };
  const socket = tlsConnect({ ...options, ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  socket.on('error', () => {});
  const outcome = await askRaw(socket, fields, body);
  // The status is the first field, indexed (RFC 7541 §6.1, appendix A) or a literal.
  if (outcome.kind !== 'answered') return 'refused';
  const [first = 0] = outcome.block;
  return (
    { 136: '200', 140: '400', 141: '404' }[first] ?? /4\d\d/.exec(outcome.block.toString('latin1'))?.[0] ?? 'other'
  );
}

it('an ordinary request by hand is answered, with and without a body', async () => {
  expect(await outcomeOf(request())).toBe('200');
  expect(await outcomeOf(request({ ':method': 'POST', 'content-length': '2' }), 'hi')).toBe('200');
  expect(seen).toHaveLength(2);
});

describe('a request over HTTP/2 is refused, and the service sees nothing of it,', () => {
  const cases: [name: string, changes: Record<string, string>, body?: string][] = [
    ['with a name in upper case', { 'X-A': 'b' }],
    ['with a path that begins another request', { ':path': `/ HTTP/1.1${CRLF}Host: x${CRLF}${CRLF}${SMUGGLED}` }],
    ['with a path with a space', { ':path': '/ /smuggled' }],
    ['with an absolute path', { ':path': 'https://example.com/' }],
    ['with no path', { ':path': '' }],
    ['with a method that is a line', { ':method': `GET /smuggled HTTP/1.1${CRLF}X:` }],
    ['with a coding of HTTP/1.1', { ':method': 'POST', 'transfer-encoding': 'chunked' }, `0${CRLF}${CRLF}${SMUGGLED}`],
    ['with a field of one connection', { connection: 'keep-alive' }],
    ['with an upgrade', { upgrade: 'websocket' }],
    ['with TE other than trailers', { te: 'gzip' }],
    ['with another host', { host: 'example.com' }],
    ['with an authority that is none', { ':authority': 'a@b/c' }],
    ['with a pseudo-field of its own', { ':smuggled': '1' }],
    ['with a length that is none', { ':method': 'POST', 'content-length': '-1' }, 'hi'],
  ];
  it.each(cases)('%s', async (_name, changes, body) => {
    expect(await outcomeOf(request(changes), body)).toMatch(/^(refused|4\d\d)$/);
    expect(seen).toEqual([]);
  });

  it('with two paths, or two authorities', async () => {
    expect(await outcomeOf([...request(), [':path', '/smuggled']])).toMatch(/^(refused|400)$/);
    expect(await outcomeOf([...request(), [':authority', stand.authorityOf(other)]])).toMatch(/^(refused|400)$/);
    expect(seen).toEqual([]);
  });
});

it('a field over HTTP/2 that is none in HTTP/1.1 is left out', async () => {
  const bad: Fields = [
    ['x-a', `b${CRLF}X-Smuggled: 1`],
    ['x-b', 'b\0c'],
    [`x-c: d${CRLF}x-smuggled`, '1'],
    ['x d', 'e'],
    ['', 'f'],
    ['x-kept', 'yes'],
  ];
  expect(await outcomeOf([...request(), ...bad])).toBe('200');
  expect(seen).toHaveLength(1);
  expect(seen[0]).toMatch(/^GET \/ host,x-kept,/);
  expect(seen[0]).not.toMatch(/smuggled|x-[abc]\b|x d/);
});

it('a body over HTTP/2 that is longer or shorter than it says does not become another request', async () => {
  expect(await outcomeOf(request({ ':method': 'POST', 'content-length': '4' }), `abcd${SMUGGLED}`)).toBe('refused');
  expect(await outcomeOf(request({ ':method': 'POST', 'content-length': '400' }), SMUGGLED)).toBe('refused');
  await stand.ask(id, '/after');
  expect(seen.filter((line) => line.includes('/smuggled'))).toEqual([]);
  expect(seen.at(-1)).toMatch(/^GET \/after /);
});

it('too large a header over HTTP/2 is refused, also in many small fields', async () => {
  const session = stand.http2(id);
  const large = { ':path': '/', ':authority': stand.authorityOf(id), 'x-large': 'x'.repeat(40_000) };
  const first = session.request(large);
  expect((await once(first, 'response'))[0]).toMatchObject({ ':status': 431 });
  session.destroy();
  const many = Object.fromEntries(Array.from({ length: 900 }, (_, index) => [`x-${index}`, 'y'.repeat(40)]));
  const again = stand.http2(id);
  const second = again.request({ ':path': '/', ':authority': stand.authorityOf(id), ...many });
  await expect(once(second, 'response')).rejects.toThrow('ENHANCE_YOUR_CALM');
  again.destroy();
  expect(seen).toEqual([]);
});
