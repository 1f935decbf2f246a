/** Files and tar streams (`/v2`), upload and download of the contract. */
import { once } from 'node:events';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { extract, pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

describe('files', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  let base: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession();
    base = `/v2/sandboxes/${id}`;
  });
  afterAll(() => daemon.stop());

  const put = (path: string, body: NonNullable<RequestInit['body']>, query = '') =>
    api.request('PUT', `${base}/files?path=${encodeURIComponent(path)}${query}`, { body });
  const download = async (path: string, query = ''): Promise<{ bytes: Buffer; headers: Headers }> => {
    const url = `${daemon.baseUrl}${base}/files?path=${encodeURIComponent(path)}${query}`;
    const response = await fetch(url, { headers: { 'x-api-key': daemon.apiKey } });
    return { bytes: Buffer.from(await response.arrayBuffer()), headers: response.headers };
  };

  it('are written and read back byte for byte, with their mode', async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    const written = await put('/workspace/deep/er/a.bin', bytes, '&parents=true&mode=0640');
    expect(written.body).toMatchObject({ name: 'a.bin', kind: 'file', size_bytes: 60_000, mode: '0640' });
    const read = await download('/workspace/deep/er/a.bin');
    expect(read.bytes.equals(bytes)).toBe(true);
    expect([read.headers.get('x-instavm-size'), read.headers.get('x-instavm-mode')]).toEqual(['60000', '0640']);
    expect(
      (await download('/workspace/deep/er/a.bin', '&offset=10&length=5')).bytes.equals(bytes.subarray(10, 15)),
    ).toBe(true);
  });

  it.each(['application/json', 'text/plain', 'multipart/form-data; boundary=x', 'application/x-www-form-urlencoded'])(
    'are taken as they are when the body says it is %s',
    async (type) => {
      const path = `${base}/files?path=/workspace/typed`;
      const init = { body: '{not json', headers: { 'content-type': type } };
      expect((await api.request('PUT', path, init)).status).toBe(200);
      expect((await download('/workspace/typed')).bytes.toString()).toBe('{not json');
    },
  );

  it('may be empty, and may be appended to', async () => {
    expect((await put('/workspace/e', '')).body.size_bytes).toBe(0);
    await put('/workspace/e', 'a');
    await put('/workspace/e', 'b', '&append=true');
    expect((await download('/workspace/e')).bytes.toString()).toBe('ab');
  });

  it('are listed, made, renamed and removed', async () => {
    const json = (path: string, body: object) => api.json('POST', `${base}/files/${path}`, body);
    expect((await json('mkdir', { path: '/workspace/d/e', parents: true, mode: '0700' })).body.mode).toBe('0700');
    await put('/workspace/d/b', 'b');
    await put('/workspace/d/a', 'a');
    const names = (await api.request('GET', `${base}/files/list?path=/workspace/d`)).body.entries.map(
      (entry: { name: string }) => entry.name,
    );
    expect(names).toEqual(['a', 'b', 'e']);
    expect((await json('rename', { from: '/workspace/d/a', to: '/workspace/d/c' })).body.name).toBe('c');
    expect((await json('remove', { path: '/workspace/d' })).body.code).toBe('file_not_empty');
    expect((await json('remove', { path: '/workspace/d', recursive: true })).body).toEqual({});
    expect((await json('remove', { path: '/workspace/d' })).body.code).toBe('file_not_found');
    expect((await json('remove', { path: '/workspace/d', force: true })).status).toBe(200);
  });

  it('keep a name that is no UTF-8 recognisable', async () => {
    await api.execute(id, String.raw`mkdir odd && touch $'odd/a\xffb' odd/plain`);
    const { body } = await api.request('GET', `${base}/files/list?path=/workspace/odd`);
    expect(body.entries).toMatchObject([
      { name: 'a\ufffdb', name_base64: Buffer.from([97, 255, 98]).toString('base64') },
      { name: 'plain' },
    ]);
    expect(body.entries[1]).not.toHaveProperty('name_base64');
  });

  it.each([
    ['/none', '', 404, 'file_not_found'],
    ['/workspace', '', 409, 'file_is_a_directory'],
    ['/workspace/escape/passwd', '&within=/workspace', 403, 'path_escape'],
    ['relative', '', 422, 'invalid_argument'],
    ['/a\0b', '', 422, 'invalid_argument'],
    [`/${'x'.repeat(5000)}`, '', 422, 'invalid_argument'],
    ['/workspace/x', '&offset=-1', 422, 'invalid_argument'],
    ['/workspace/x', '&nonsense=1', 422, 'invalid_argument'],
  ])('at %j%s answer %i %s', async (path, query, status, code) => {
    await api.execute(id, 'ln -sfn /etc escape');
    const answer = await api.request('GET', `${base}/files?path=${encodeURIComponent(path)}${query}`);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });

  it('are refused with an answer, however much of them is still to come', async () => {
    const big = new Uint8Array(20_000_000);
    const inDirectory = await put('/workspace', big);
    expect([inDirectory.status, inDirectory.body.code]).toEqual([409, 'file_is_a_directory']);
    const unknown = '/v2/sandboxes/00000000-0000-4000-8000-000000000000/files?path=/x';
    expect((await api.request('PUT', unknown, { body: big })).status).toBe(404);
  });

  it('appear complete or not at all', async () => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new Uint8Array(100_000));
        setTimeout(() => controller.error(new Error('gone')), 100);
      },
    });
    await expect(
      fetch(`${daemon.baseUrl}${base}/files?path=/workspace/half`, {
        method: 'PUT',
        headers: { 'x-api-key': daemon.apiKey },
        body,
        duplex: 'half',
      } as RequestInit),
    ).rejects.toThrow();
    const listing = async () => (await api.execute(id, 'ls -A | grep -e half -e partial')).body.stdout;
    await expect.poll(listing).toBe('');
  });

  it('are watched as server-sent events, first of them ready', async () => {
    const stop = new AbortController();
    const headers = { 'x-api-key': daemon.apiKey };
    const url = `${daemon.baseUrl}${base}/files/watch?path=/workspace`;
    const response = await fetch(url, { headers, signal: stop.signal });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const next = async () => Buffer.from((await reader.read()).value ?? []).toString();
    expect(await next()).toBe('data: {"kind":"ready","path":""}\n\n');
    await put('/workspace/watched', 'x');
    expect(await next()).toContain('"path":"');
    stop.abort();
  });

  describe('as tar streams', () => {
    const archive = async (entries: [string, string][]): Promise<Buffer> => {
      const packer = pack();
      for (const [name, text] of entries) packer.entry({ name, mode: 0o644 }, text);
      packer.finalize();
      const pieces: Buffer[] = [];
      for await (const piece of packer) pieces.push(piece as Buffer);
      return Buffer.concat(pieces);
    };

    it('are unpacked and packed, without what is excluded', async () => {
      const body = await archive([
        ['one', '1'],
        ['sub/two', '2'],
        ['skip/three', '3'],
      ]);
      const answer = await api.request('PUT', `${base}/tar?path=/workspace/tree`, { body: new Uint8Array(body) });
      expect(answer.body).toMatchObject({ entries: 3 });
      const response = await fetch(`${daemon.baseUrl}${base}/tar?path=/workspace/tree&exclude=skip`, {
        headers: { 'x-api-key': daemon.apiKey },
      });
      const names: string[] = [];
      const reader = extract();
      reader.on('entry', (header, stream, next) => {
        if (header.type === 'file') names.push(header.name.replace(/^\.\//, ''));
        stream.on('end', next).resume();
      });
      reader.end(Buffer.from(await response.arrayBuffer()));
      await once(reader, 'finish');
      expect(names.sort()).toEqual(['one', 'sub/two']);
    });

    it('are refused when they are none, too large, or of something that is no directory', async () => {
      const put = (query: string, body: Uint8Array<ArrayBuffer>) =>
        api.request('PUT', `${base}/tar?path=${query}`, { body });
      const garbage = await put('/workspace/t', new Uint8Array(2048).fill(65));
      expect([garbage.status, garbage.body.code]).toEqual([422, 'archive_invalid']);
      const large = await put('/workspace/t&max_bytes=100', new Uint8Array(await archive([['a', 'x'.repeat(2000)]])));
      expect([large.status, large.body.code]).toEqual([413, 'archive_limit']);
      expect((await api.request('GET', `${base}/tar?path=/none`)).body.code).toBe('file_not_found');
    });
  });

  describe('of the contract', () => {
    const form = (fields: Record<string, string>, contents: Uint8Array<ArrayBuffer> | undefined): FormData => {
      const data = new FormData();
      for (const [name, value] of Object.entries(fields)) data.append(name, value);
      if (contents !== undefined) data.append('file', new Blob([contents]), '/home/me/some where/local.bin');
      return data;
    };
    const upload = (fields: Record<string, string>, contents?: Uint8Array<ArrayBuffer>) =>
      api.request('POST', '/upload', { body: form(fields, contents) });
    const get = (filename: string) =>
      api.request('POST', '/download', { body: new URLSearchParams({ filename, session_id: id }) });

    it.each([0, 1, 2, 3, 1000, 3_000_001])('come back whole: %i bytes', async (size) => {
      const bytes = new Uint8Array(size).map((_, index) => index % 251);
      const sent = await upload({ remote_path: '/workspace/u', session_id: id, recursive: 'false' }, bytes);
      expect(sent.status).toBe(200);
      const { body } = await get('/workspace/u');
      // The official client takes an empty text for a missing one.
      expect(body.content).toBeTruthy();
      expect(Buffer.from(body.content, 'base64').equals(bytes)).toBe(true);
    });

    it('name every bad field', async () => {
      const { status, body } = await upload({ session_id: id, color: 'red' }, new Uint8Array(5));
      expect([status, body.code]).toEqual([422, 'invalid_argument']);
      expect(body.details.fields.map((field: { path: string }) => field.path)).toEqual(['remote_path', 'color']);
    });

    it('are refused without a file, without a form, and for an unknown session', async () => {
      expect((await upload({ remote_path: '/x', session_id: id })).body.code).toBe('malformed_request');
      expect((await api.json('POST', '/upload', {})).status).toBe(400);
      const cut = { body: '--x\r\ncontent-dispo', headers: { 'content-type': 'multipart/form-data; boundary=x' } };
      expect((await api.request('POST', '/upload', cut)).body.code).toBe('malformed_request');
      const unknown = { remote_path: '/x', session_id: '00000000-0000-4000-8000-000000000000' };
      expect((await upload(unknown, new Uint8Array(9_000_000))).status).toBe(404);
      expect((await get('/none')).body.code).toBe('file_not_found');
    });
  });
});
