import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { constants } from 'node:http2';
import { Agent, request as httpsRequest } from 'node:https';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readAnswer, Stand } from './stand.ts';

let stand: Stand;
let echo: string;
/** Releases the second half of answers under /slow. */
let release = (): void => {};

beforeAll(async () => {
  stand = await Stand.start();
  echo = await stand.service('echo', (request, response) => {
    const url = request.url ?? '';
    if (url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      release = () => response.write('data: one\n\n');
      return;
    }
    if (url === '/trailers') {
      response.writeHead(200, { trailer: 'X-Checksum' });
      response.write('body');
      response.addTrailers({ 'X-Checksum': 'abc', 'Set-Cookie': 'late=1' });
      response.end();
      return;
    }
    if (url === '/early') {
      response.writeHead(413, { 'content-length': '3' }).end('too');
      return;
    }
    if (url === '/big') {
      response.writeHead(200);
      const chunk = Buffer.alloc(1 << 20, 7);
      let left = 32;
      const push = (): void => {
        while (left > 0) {
          left -= 1;
          if (!response.write(chunk)) return void response.once('drain', push);
        }
        response.end();
      };
      push();
      return;
    }
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      response.setHeader('x-sum', String(body.length));
      response.end(
        JSON.stringify({
          method: request.method,
          url,
          headers: request.headers,
          raw: request.rawHeaders,
          trailers: request.trailers,
          length: body.length,
          body: body.slice(0, 100),
        }),
      );
    });
  });
});
afterAll(() => stand.close());

type Echo = {
  method: string;
  url: string;
  headers: Record<string, string>;
  raw: string[];
  trailers: object;
  length: number;
  body: string;
};
const echoed = (body: string): Echo => JSON.parse(body) as Echo;

describe('a request over HTTP/1.1', () => {
  it('reaches the service with its path, Host and the visitor address, and none of the fields of one connection', async () => {
    const { status, body } = await stand.ask(echo, '/a//b/../c?x=1&y=%2F', {
      headers: {
        'x-forwarded-for': '6.6.6.6',
        'X-Forwarded-User': 'admin',
        Forwarded: 'for=6.6.6.6',
        'X-Real-IP': '6.6.6.6',
        connection: 'keep-alive, x-secret-hop, host',
        'x-secret-hop': '1',
        'proxy-authorization': 'Basic x',
        te: 'gzip',
        'x-kept': 'yes',
      },
    });
    expect(status).toBe(200);
    const seen = echoed(body);
    const authority = stand.authorityOf(echo);
    expect(seen).toMatchObject({ method: 'GET', url: '/a//b/../c?x=1&y=%2F' });
    expect(seen.headers).toMatchObject({
      host: authority,
      'x-kept': 'yes',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': authority,
      forwarded: `for=127.0.0.1;host="${authority}";proto=https`,
      via: '1.1 instavm',
    });
    for (const gone of ['x-forwarded-user', 'x-real-ip', 'x-secret-hop', 'proxy-authorization', 'te']) {
      expect(seen.headers).not.toHaveProperty(gone);
    }
  });

  it('uploads with a length, in chunks with trailers, and without a body', async () => {
    const sized = echoed((await stand.ask(echo, '/', { method: 'PUT', body: 'x'.repeat(300_000) })).body);
    expect(sized).toMatchObject({ length: 300_000, headers: { 'content-length': '300000' } });

    const { promise, resolve } = Promise.withResolvers<IncomingMessage>();
    const options = stand.optionsFor(echo, '/', { method: 'POST', headers: { trailer: 'x-sum' } });
    const request = httpsRequest(options, resolve);
    request.write('one');
    request.write('two');
    request.addTrailers({ 'x-sum': '6', 'x-other': 'y' });
    request.end();
    const chunked = echoed((await readAnswer(await promise)).body);
    expect(chunked).toMatchObject({
      body: 'onetwo',
      headers: { 'transfer-encoding': 'chunked' },
      trailers: { 'x-sum': '6', 'x-other': 'y' },
    });

    const empty = echoed((await stand.ask(echo, '/', { method: 'POST' })).body);
    expect(empty).toMatchObject({ length: 0 });
  });

  it('asks with HEAD without a body, and passes trailers of an answer', async () => {
    const head = await stand.ask(echo, '/', { method: 'HEAD' });
    expect(head).toMatchObject({ status: 200, body: '' });
    const trailers = await stand.ask(echo, '/trailers', { headers: { te: 'trailers', connection: 'te' } });
    expect(trailers).toMatchObject({ body: 'body', trailers: { 'x-checksum': 'abc' } });
    expect(trailers.trailers).not.toHaveProperty('set-cookie');
  });

  it('passes 100-continue from the service, and a refusal before it', async () => {
    const ask = async (id: string) => {
      const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
      const headers = { expect: '100-continue', 'content-length': '5' };
      const request = httpsRequest(stand.optionsFor(id, '/', { method: 'POST', headers }), resolve).once(
        'error',
        reject,
      );
      let continued = false;
      request.on('continue', () => {
        continued = true;
        request.end('hello');
      });
      request.flushHeaders();
      const answer = await readAnswer(await promise);
      request.on('error', () => {}).destroy();
      return { ...answer, continued };
    };
    const accepted = await ask(echo);
    expect(accepted).toMatchObject({ continued: true, status: 200 });
    expect(echoed(accepted.body)).toMatchObject({ body: 'hello' });

    const refusing = createTcpServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'));
    });
    const refused = await ask(stand.share('refusing', await stand.listen(refusing)));
    expect(refused).toMatchObject({ continued: false, status: 413, body: 'no', headers: { connection: 'close' } });
  });

  it('gets server-sent events as they are written, the header before the first', async () => {
    const answer = await stand.open(echo, '/events');
    expect(answer.headers['content-type']).toBe('text/event-stream');
    release();
    const [chunk] = (await once(answer, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('data: one\n\n');
    answer.destroy();
    await expect.poll(() => stand.connections.size).toBeLessThan(5);
  });

  it('downloads what is larger than every buffer', async () => {
    const answer = await stand.open(echo, '/big');
    let bytes = 0;
    for await (const chunk of answer) bytes += (chunk as Buffer).length;
    expect(bytes).toBe(32 << 20);
  });

  it('is answered while it is still being sent', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = httpsRequest(stand.optionsFor(echo, '/early', { method: 'POST' }), resolve).once('error', reject);
    request.write('part of a body');
    expect(await readAnswer(await promise)).toMatchObject({ status: 413, body: 'too' });
    request.on('error', () => {});
    request.destroy();
  });

  it('that was answered before its end is read to its end, where the next one begins', async () => {
    const length = 16 << 20;
    const socket = await stand.rawSocket(echo);
    const heard: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => heard.push(chunk)).on('error', () => {});
    const host = `Host: ${stand.authorityOf(echo)}`;
    socket.write(`POST /early HTTP/1.1\r\n${host}\r\nContent-Length: ${length}\r\n\r\n`);
    await expect.poll(() => Buffer.concat(heard).toString()).toMatch(/ 413 .*too$/s);
    socket.write(Buffer.alloc(length));
    socket.write(`GET /next HTTP/1.1\r\n${host}\r\n\r\n`);
    await expect.poll(() => Buffer.concat(heard).toString()).toContain('"url":"/next"');
    socket.destroy();
  });

  it('reuses connections to the service for a page with many parts, also 500 at once', async () => {
    const before = stand.connected;
    const agent = new Agent({ keepAlive: true, maxSockets: 50 });
    for (let round = 0; round < 10; round += 1) await stand.ask(echo, `/${round}`, { agent });
    expect(stand.connected - before).toBeLessThanOrEqual(2);

    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, index) => stand.ask(echo, `/part/${index}`, { agent })),
    );
    expect(answers.map(({ body }) => echoed(body).url)).toEqual(answers.map((_, index) => `/part/${index}`));
    agent.destroy();
  });

  it('asks once more when the service closed a kept connection, unless it could have acted on it', async () => {
    let sockets = 0;
    const server = createTcpServer((socket) => {
      sockets += 1;
      let requests = 0;
      socket.on('data', () => {
        requests += 1;
        if (requests === 1) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        else socket.destroy();
      });
      socket.on('error', () => {});
    });
    const id = stand.share('closing', await stand.listen(server));
    expect(await stand.ask(id, '/')).toMatchObject({ body: 'ok' });
    expect(await stand.ask(id, '/')).toMatchObject({ body: 'ok' });
    expect(sockets).toBe(2);
  });

  it('serves files in ranges through python -m http.server', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'instavm-files-'));
    await writeFile(join(directory, 'data.txt'), '0123456789');
    const python = spawn('python3', ['-u', '-m', 'http.server', '0', '--bind', '127.0.0.1', '--directory', directory]);
    try {
      const [line] = (await once(python.stdout, 'data')) as [Buffer];
      const id = stand.share('files', Number(/port (\d+)/.exec(line.toString())?.[1]));
      expect(await stand.ask(id, '/data.txt')).toMatchObject({
        status: 200,
        body: '0123456789',
        headers: { 'content-length': '10' },
      });
      expect(await stand.ask(id, '/')).toMatchObject({ status: 200, body: expect.stringContaining('data.txt') });
      expect(await stand.ask(id, '/none')).toMatchObject({ status: 404 });
    } finally {
      python.kill();
      await rm(directory, { recursive: true });
    }
  });

  it('passes ranges to the service and its partial answer back', async () => {
    const id = await stand.service('ranges', (request, response) => {
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
      response.writeHead(206, { 'content-range': `bytes ${from}-${to}/10` });
      response.end('0123456789'.slice(Number(from), Number(to) + 1));
    });
    const answer = await stand.ask(id, '/', { headers: { range: 'bytes=2-4' } });
    expect(answer).toMatchObject({ status: 206, body: '234', headers: { 'content-range': 'bytes 2-4/10' } });
  });
});

describe('an answer that breaks off', () => {
  type Half = { readonly id: string; readonly breakOff: () => void };
  /** @param reset undefined: it ends by itself */
  const half = async (name: string, bytes: string, reset?: boolean): Promise<Half> => {
    const sockets: Socket[] = [];
    const server = createTcpServer((socket) => {
      sockets.push(socket.on('error', () => {}));
      socket.once('data', () => (reset === undefined ? socket.end(bytes) : socket.write(bytes)));
    });
    const breakOff = (): void => {
      for (const socket of sockets.splice(0)) reset ? socket.resetAndDestroy() : socket.end();
    };
    return { id: stand.share(name, await stand.listen(server)), breakOff };
  };

  it('never looks whole: not with a length, not in chunks, not over HTTP/2', async () => {
    const sized = await half('sized', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this', false);
    const chunked = await half('chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', false);
    const reset = await half('reset', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', true);
    for (const { id, breakOff } of [sized, chunked, reset]) {
      const answer = readAnswer(await stand.open(id, '/'));
      breakOff();
      await expect(answer).rejects.toThrow(/aborted|hang up|ECONNRESET/);
      const session = stand.http2(id);
      const stream = session.request({ ':path': '/', ':authority': stand.authorityOf(id) });
      stream.resume();
      await once(stream, 'response');
      const ended = once(stream, 'end').then(() => once(stream, 'close'));
      breakOff();
      await expect(ended).rejects.toThrow(/NGHTTP2_INTERNAL_ERROR/);
      session.destroy();
    }
  });

  it('is a page when nothing of it was sent yet', async () => {
    for (const [name, bytes] of [
      ['silent', ''],
      ['garbage', 'SSH-2.0-OpenSSH_9.2\r\n'],
      ['both', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
      ['unasked', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
      ['header', `HTTP/1.1 200 OK\r\nX-Large: ${'x'.repeat(70_000)}\r\n\r\n`],
    ] as const) {
      const { id } = await half(`e${name}`, bytes);
      const answer = await stand.ask(id, '/');
      expect([name, answer.status, answer.headers['instavm-preview']]).toEqual([name, 502, 'service_failed']);
      expect(JSON.parse(answer.body)).toMatchObject({ code: 'service_failed', retryable: 'unknown' });
    }
  });

  it('ends the request to the service when the visitor leaves', async () => {
    let closed = false;
    const id = await stand.service('leaver', (request, response) => {
      request.on('close', () => {
        closed = true;
      });
      response.write('first');
    });
    const answer = await stand.open(id, '/');
    await once(answer, 'data');
    answer.destroy();
    await expect.poll(() => closed).toBe(true);
  });
});

describe('a request over HTTP/2', () => {
  const exchange = async (
    id: string,
    headers: Record<string, string | string[]>,
    body?: string,
  ): Promise<{ headers: Record<string, unknown>; trailers: Record<string, unknown>; body: string }> => {
    const session = stand.http2(id);
    try {
      const stream = session.request(
        { ':path': '/', ':authority': stand.authorityOf(id), ...headers },
        { endStream: body === undefined },
      );
      if (body !== undefined) stream.end(body);
      let trailers: Record<string, unknown> = {};
      stream.on('trailers', (fields) => {
        trailers = fields;
      });
      const [answer] = (await once(stream, 'response')) as [Record<string, unknown>];
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk as Buffer);
      return { headers: answer, trailers, body: Buffer.concat(chunks).toString() };
    } finally {
      session.destroy();
    }
  };

  it('becomes one of HTTP/1.1, cookies in one field, the body in chunks when it has no length', async () => {
    const get = echoed((await exchange(echo, { cookie: ['a=1', 'b=2'] })).body);
    expect(get).toMatchObject({
      method: 'GET',
      headers: { cookie: 'a=1; b=2', via: '2.0 instavm', host: stand.authorityOf(echo) },
    });
    expect(get.headers).not.toHaveProperty('transfer-encoding');
    const post = echoed((await exchange(echo, { ':method': 'POST' }, 'hello')).body);
    expect(post).toMatchObject({ body: 'hello', headers: { 'transfer-encoding': 'chunked' } });
    const sized = echoed((await exchange(echo, { ':method': 'POST', 'content-length': '5' }, 'hello')).body);
    expect(sized.headers).toMatchObject({ 'content-length': '5' });
  });

  it('gets trailers, and none of the fields that HTTP/2 forbids', async () => {
    const answer = await exchange(echo, { ':path': '/trailers' });
    expect(answer).toMatchObject({ body: 'body', trailers: { 'x-checksum': 'abc' } });
    expect(answer.headers).not.toHaveProperty('connection');
  });

  it('is answered while it is still being sent, and the rest is not wanted', async () => {
    const session = stand.http2(echo);
    const stream = session.request({ ':path': '/early', ':method': 'POST', ':authority': stand.authorityOf(echo) });
    stream.write('part of a body');
    const [answer] = (await once(stream, 'response')) as [Record<string, unknown>];
    expect(answer[':status']).toBe(413);
    stream.resume();
    await once(stream, 'close');
    expect(stream.rstCode).toBe(0);
    session.destroy();
  });

  it('that was given up is not told to continue, when the service asks for the rest of what it has not taken', async () => {
    const connected = Promise.withResolvers<void>();
    const made = Promise.withResolvers<void>();
    const id = stand.failing('goon', async () => {
      made.resolve();
      await connected.promise;
      const service = new Duplex({ read: () => {}, write: () => void service.push('HTTP/1.1 100 Continue\r\n\r\n') });
      service.once('close', () => left.resolve());
      return service;
    });
    const left = Promise.withResolvers<void>();
    const session = stand.http2(id);
    const headers = { ':method': 'POST', ':path': '/', ':authority': stand.authorityOf(id), expect: '100-continue' };
    const stream = session.request(headers).on('error', () => {});
    await new Promise((resolve) => stream.write(Buffer.alloc(256 * 1024), resolve));
    await made.promise;
    stream.close(constants.NGHTTP2_NO_ERROR);
    await new Promise((resolve) => session.ping(resolve));
    connected.resolve();
    await left.promise;
    expect((await exchange(echo, {})).headers).toMatchObject({ ':status': 200 });
    session.destroy();
  });

  it('shares one connection with a hundred others', async () => {
    const session = stand.http2(echo);
    const bodies = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const stream = session.request({ ':path': `/s/${index}`, ':authority': stand.authorityOf(echo) });
        let body = '';
        for await (const chunk of stream.setEncoding('utf8')) body += chunk as string;
        return echoed(body).url;
      }),
    );
    expect(bodies).toEqual(bodies.map((_, index) => `/s/${index}`));
    session.destroy();
  });

  it.each([
    [{}, '200 OK\r\nETag: "a"\r\nETag: "b"'],
    [{}, '200 OK\r\nDate: today\r\nDate: tomorrow\r\nContent-Encoding: gzip'],
    [
      { ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', 'sec-websocket-version': '13' },
      '101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nETag: "a"\r\nETag: "b"',
    ],
  ])(
    'that %o is answered with a field twice that may be there once is a page, without anything of it',
    async (headers, answered) => {
      const left = Promise.withResolvers<void>();
      const service = createTcpServer((socket) => {
        socket.on('error', () => {}).once('close', () => left.resolve());
        socket.once('data', () => socket.write(`HTTP/1.1 ${answered}\r\n\r\n`));
      });
      const twice = stand.share('twice', await stand.listen(service));
      const answer = await exchange(twice, headers);
      expect(answer.headers).toMatchObject({ ':status': 502, 'instavm-preview': 'service_failed' });
      expect(answer.headers).not.toHaveProperty('content-encoding');
      expect(answer.body).toContain('no valid HTTP');
      await left.promise;
    },
  );

  it('for another host than that of its connection is misdirected', async () => {
    const other = await stand.service('other', (_request, response) => response.end('other'));
    const answer = await exchange(echo, { ':authority': stand.authorityOf(other) });
    expect(answer.headers).toMatchObject({ ':status': 421, 'instavm-preview': 'misdirected_request' });
  });
});
