/** What happens to visitors when a share is revoked or made private while they are there, or on their way in. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { PassThrough } from 'node:stream';
import { type LinkId, newLinkId } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { KEY, Stand, shareId } from './stand.ts';

let stand: Stand;
beforeAll(async () => {
  stand = await Stand.start();
});
afterAll(() => stand.close());

const OWNER = { headers: { 'x-api-key': KEY } };
let made = 0;

/** Events that never end. */
const endless = (isPublic: boolean): Promise<string> =>
  stand.service(`e${'bcdefgh'[made++]}`, (_request, response) => void response.write('data: first\n\n'), isPublic);

const isCut = (answer: IncomingMessage): Promise<void> =>
  new Promise((cut) => answer.on('error', () => cut()).resume());

function become(id: string, change: { isPublic: boolean } | undefined): void {
  const target = stand.targets.get(id);
  if (target && change) stand.targets.set(id, { ...target, ...change });
  else stand.targets.delete(id);
  stand.proxy.withdraw(id, change ? 'public' : 'share');
}

describe('a share that is made private', () => {
  it('ends what strangers have under way, and not what its owner has', async () => {
    const id = await endless(true);
    const stranger = isCut(await stand.open(id, '/'));
    become(id, { isPublic: false });
    await stranger;
    const owner = await stand.open(id, '/', OWNER);
    become(id, { isPublic: true });
    const another = isCut(await stand.open(id, '/'));
    become(id, { isPublic: false });
    await another;
    expect(owner.destroyed).toBe(false);
    const ended = isCut(owner);
    become(id, undefined);
    await ended;
  });

  it('ends WebSockets too', async () => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    await new Promise((resolve) => server.once('listening', resolve));
    const id = stand.share('socket', (server.address() as import('node:net').AddressInfo).port);
    const socket = new WebSocket(`wss://${stand.authorityOf(id)}/`, {
      ca: stand.ca,
      servername: stand.hostOf(id),
      lookup: ((_host, _options, done) =>
        done(null, [{ address: '127.0.0.1', family: 4 }])) as import('node:net').LookupFunction,
    } as WebSocket.ClientOptions);
    await new Promise((resolve) => socket.once('open', resolve));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    become(id, { isPublic: false });
    await closed;
    server.close();
  });

  it('lets nobody in who was judged by what it was before', async () => {
    const id = await endless(true);
    const find = vi.spyOn(stand.targets, 'get');
    find.mockImplementationOnce((name) => {
      const before = Map.prototype.get.call(stand.targets, name) as ReturnType<typeof stand.targets.get>;
      become(name, { isPublic: false });
      return before;
    });
    const answer = await stand.ask(id, '/');
    find.mockRestore();
    expect(answer).toMatchObject({ status: 302, headers: { 'instavm-preview': 'share_private' } });
  });
});

describe('a link that is taken back', () => {
  it('ends what is under way through it, and nothing else', async () => {
    const id = await endless(false);
    const by = async (link: LinkId) => {
      const url = stand.proxy.signedUrlOf(id, link, new Date(stand.now + 60_000));
      const token = new URL(url).searchParams.get('instavm_token') ?? '';
      return stand.open(id, '/', { headers: { 'x-instavm-token': token } });
    };
    const [link, other] = [newLinkId(), newLinkId()];
    const answers = [await by(link), await by(link), await by(other), await stand.open(id, '/', OWNER)] as const;
    const ended = Promise.all(answers.slice(0, 2).map(isCut));
    stand.revoked.add(link);
    stand.proxy.withdraw(id, link);
    await ended;
    expect([answers[2].destroyed, answers[3].destroyed]).toEqual([false, false]);
    for (const answer of answers) answer.destroy();
  });
});

describe('a key that is revoked', () => {
  it('ends what was opened with it, and is let go of by what has ended', async () => {
    const id = await endless(false);
    const answers = [await stand.open(id, '/', OWNER), await stand.open(id, '/', OWNER)] as const;
    answers[0].destroy();
    await expect.poll(() => stand.byKey.size).toBe(1);
    const ended = isCut(answers[1]);
    for (const end of [...stand.byKey]) end();
    await ended;
    await expect.poll(() => stand.byKey.size).toBe(0);
  });
});

describe('a share that is revoked', () => {
  it('lets go of a connection that was being made', async () => {
    const connected: ((stream: Duplex) => void)[] = [];
    const id = stand.failing('slow', () => {
      const { promise, resolve } = Promise.withResolvers<Duplex>();
      connected.push(resolve);
      return promise;
    });
    const answers = [stand.ask(id, '/'), stand.ask(id, '/', { method: 'POST', body: 'x' })];
    const refused = Promise.allSettled(answers);
    await expect.poll(() => connected).toHaveLength(2);
    become(id, undefined);
    expect((await refused).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    const late = connected.map((resolve) => {
      const stream = new PassThrough();
      resolve(stream);
      return stream;
    });
    await expect.poll(() => late.map(({ destroyed }) => destroyed)).toEqual([true, true]);
    expect(await stand.ask(id, '/')).toMatchObject({ status: 404 });
    expect(await stand.ask(shareId('never'), '/')).toMatchObject({ status: 404 });
  });
});
