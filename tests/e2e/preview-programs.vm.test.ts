/** What people run behind previews, in a real microVM: an Express application, a Jupyter server with a kernel, python -m http.server. */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { Readable } from 'node:stream';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { MOUNTED, PreviewStage } from './preview/stage.ts';

const MIB = 1 << 20;
const JUPYTER_PORT = 8888;

let stage: PreviewStage;
/** Of the Express application. */
let app: string;

beforeAll(async () => {
  stage = await PreviewStage.open();
  await stage.bring('express-app.mjs');
  // The slowest to start first.
  const jupyter = `PYTHONPATH=${MOUNTED}/python PYTHONDONTWRITEBYTECODE=1 python3 -m jupyter_server --allow-root --ip=127.0.0.1`;
  await stage.start(`${jupyter} --port=${JUPYTER_PORT} --IdentityProvider.token=of-jupyter`, JUPYTER_PORT);
  await stage.start('node express-app.mjs', 3000);
  await stage.listening(3000);
  app = (await stage.sandbox.shares.create({ port: 3000, isPublic: true })).url;
});
afterAll(() => stage?.close());

const sha256Hex = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('an Express application', () => {
  it('answers 500 visitors at once', async () => {
    // A connection each, as from 500 people; the agent has no limit.
    const numbers = Array.from({ length: 500 }, (_, number) => String(number));
    const answers = await Promise.all(numbers.map((number) => stage.ask(`${app}/hello?number=${number}`)));
    expect(answers.map(({ body }) => JSON.parse(body.toString()).number)).toEqual(numbers);
    stage.agent.destroy();
  });

  it('sends events one by one, as they happen', async () => {
    const answer = await stage.open(`${app}/events`);
    // Held back, the first would never come: the next is sent when it has been seen.
    let text = '';
    let told = 0;
    for await (const part of answer.setEncoding('utf8')) {
      text += part;
      for (; told < text.split('\n\n').length - 1; told++) await stage.ask(`${app}/events/seen`, { method: 'POST' });
    }
    expect(text).toBe(Array.from({ length: 5 }, (_, number) => `id: ${number}\ndata: event ${number}\n\n`).join(''));
  });

  it('takes an upload in chunks with trailers, and a large one, unchanged', async () => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const asked = request(`${app}/upload`, { agent: stage.agent, method: 'POST', headers: { trailer: 'x-sum' } });
    asked.once('response', resolve).once('error', reject);
    asked.write('one, ');
    asked.write('two');
    asked.addTrailers({ 'x-sum': '8' });
    asked.end();
    expect(await json(await promise)).toMatchObject({ size: 8, coding: 'chunked', trailers: { 'x-sum': '8' } });

    const bytes = randomBytes(24 * MIB);
    const { body } = await stage.ask(`${app}/upload`, { method: 'POST', body: Readable.from([bytes]) });
    expect(JSON.parse(body.toString())).toMatchObject({ size: bytes.length, sha256Hex: sha256Hex(bytes) });
  });

  it('sends 64 MB whole', async () => {
    const answer = await stage.open(`${app}/bytes/${64 * MIB}`);
    const hash = createHash('sha256');
    let size = 0;
    for await (const part of answer as AsyncIterable<Buffer>) {
      hash.update(part);
      size += part.length;
    }
    expect(size).toBe(64 * MIB);
    expect(hash.digest('hex')).toBe(sha256Hex(Buffer.alloc(64 * MIB, 'instavm!')));
  });

  it('serves parts of files, and says how they are without sending them', async () => {
    const bytes = randomBytes(3 * MIB);
    await stage.sandbox.files.write('/root/files/video.bin', bytes);
    const url = `${app}/files/video.bin`;
    const head = await stage.ask(url, { method: 'HEAD' });
    expect([head.status, head.body.length]).toEqual([200, 0]);
    expect(head.headers).toMatchObject({ 'accept-ranges': 'bytes', 'content-length': String(bytes.length) });
    const range = async (value: string) => stage.ask(url, { headers: { range: value } });
    const middle = await range(`bytes=1000000-1999999`);
    expect([middle.status, middle.headers['content-range']]).toEqual([206, `bytes 1000000-1999999/${bytes.length}`]);
    expect(middle.body.equals(bytes.subarray(1_000_000, 2_000_000))).toBe(true);
    expect((await range('bytes=-5')).body).toEqual(bytes.subarray(-5));
    expect((await range(`bytes=${bytes.length}-`)).status).toBe(416);
    const { etag = '' } = head.headers;
    expect((await stage.ask(url, { headers: { 'if-none-match': etag } })).status).toBe(304);
  });

  it('echoes frames of a megabyte over a WebSocket, several under way in both directions', async () => {
    const socket = new WebSocket(`${app.replace('https', 'wss')}/echo`, { agent: stage.agent });
    await once(socket, 'open');
    const frames = Array.from({ length: 6 }, () => randomBytes(MIB));
    const echoed: Buffer[] = [];
    const all = new Promise<void>((done) =>
      socket.on('message', (data) => echoed.push(data as Buffer) === frames.length && done()),
    );
    for (const frame of frames) socket.send(frame);
    await all;
    expect(echoed.map(sha256Hex)).toEqual(frames.map(sha256Hex));
    socket.close(4000, 'enough');
    expect(await once(socket, 'close')).toEqual([4000, Buffer.from('enough')]);
  });

  it('is told the name that visitors use, or its own when that is asked for', async () => {
    const hostOf = async () => JSON.parse((await stage.ask(`${app}/hello`)).body.toString()).host;
    expect(await hostOf()).toBe(new URL(app).host);
    await stage.sandbox.shares.create({ port: 3000, rewriteHost: true });
    expect(await hostOf()).toBe('localhost:3000');
    await stage.sandbox.shares.create({ port: 3000, rewriteHost: false });
  });
});

describe('a Jupyter server', () => {
  it('runs 1+1 in a kernel, over its REST interface and its WebSocket', async () => {
    await stage.listening(JUPYTER_PORT);
    const { url } = await stage.sandbox.shares.create({ port: JUPYTER_PORT, isPublic: true });
    const headers = { authorization: 'token of-jupyter', 'content-type': 'application/json', origin: url };
    // As it is, it answers to local names only.
    expect((await stage.ask(`${url}/api`, { headers })).status).toBe(403);
    await stage.sandbox.shares.create({ port: JUPYTER_PORT, rewriteHost: true });
    expect((await stage.ask(`${url}/api`, { headers })).status).toBe(200);

    const made = await stage.ask(`${url}/api/kernels`, { method: 'POST', headers, body: Buffer.from('{}') });
    expect(made.status).toBe(201);
    const { id } = JSON.parse(made.body.toString());
    const channels = `${url.replace('https', 'wss')}/api/kernels/${id}/channels`;
    const socket = new WebSocket(channels, { agent: stage.agent, headers });
    await once(socket, 'open');
    const header = { msg_id: 'first', msg_type: 'execute_request', username: 'ada', session: 's', version: '5.3' };
    const content = { code: '1+1', silent: false, store_history: true, user_expressions: {}, allow_stdin: false };
    const message = { header, parent_header: {}, metadata: {}, content, channel: 'shell', buffers: [] };
    const result = new Promise<string>((resolve) =>
      socket.on('message', (data) => {
        const answer = JSON.parse(String(data));
        if (answer.msg_type === 'execute_result') resolve(answer.content.data['text/plain']);
      }),
    );
    socket.send(JSON.stringify(message));
    expect(await result).toBe('2');
    socket.terminate();
  });
});
