/** Requests of the TypeScript client whose answers, or their own bodies, come in pieces or not at all. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVM } from 'instavm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

let server: Server;
let client: InstaVM;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
beforeEach(async () => {
  server = createServer({ keepAliveTimeout: 50 }, (request, response) => {
    // Without the hint how long it is kept, which would have the client take another one.
    response.setHeader('connection', 'keep-alive');
    answer(request, response);
  });
  Object.assign(server, { keepAliveTimeoutBuffer: 0 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = new InstaVM({ apiKey: 'k', baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
});
afterEach(() => {
  client.close();
  server.closeAllConnections();
  server.close();
});

const files = () => client.sandboxes.attach('one').files;

describe('a request', () => {
  it.each([200, 503])('whose answer with status %i breaks off fails as one that was lost', async (status) => {
    answer = (_, response) => {
      response.writeHead(status, { 'content-length': 100 }).write('{"code":');
      setImmediate(() => response.socket?.end());
    };
    const failed = { code: 'connection_lost', retryable: 'unknown' };
    await expect(client.sandboxes.list()).rejects.toMatchObject(failed);
    await expect(files().read('/f')).rejects.toMatchObject(failed);
    const unpacked = async (): Promise<void> => {
      for await (const _ of files().packTar('/d'));
    };
    await expect(unpacked()).rejects.toMatchObject(failed);
  });

  it('that is refused keeps the characters of the reason, wherever they are cut', async () => {
    answer = async (_, response) => {
      const body = Buffer.from('{"code":"file_not_found","detail":"there is no /tmp/Grüße"}');
      const cut = body.indexOf('ü') + 1;
      response.writeHead(404, { 'content-length': body.length }).write(body.subarray(0, cut));
      await sleep(50);
      response.end(body.subarray(cut));
    };
    await expect(files().stat('/tmp/Grüße')).rejects.toThrow('there is no /tmp/Grüße');
  });

  it('whose body takes its time to begin is not taken for an idle connection', async () => {
    answer = (request, response) => request.resume().once('end', () => response.end('{}'));
    const slow = async function* (): AsyncGenerator<Uint8Array> {
      await sleep(300);
      yield Buffer.from('x');
    };
    // The next request goes out on its connection.
    await files().remove('/f');
    await expect(files().write('/f', slow())).resolves.toBeDefined();
  });
});
