/** What happens to the bytes of an open connection, and to its ends. */
import { once } from 'node:events';
import { connect, constants, createServer } from 'node:http2';
import { createConnection, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Bandwidth } from '../src/gateway/bandwidth.ts';
import { Flow } from '../src/gateway/flow.ts';
import { Intake } from '../src/gateway/intake.ts';
import { bytesOf, endOf, resetStream } from './support/guest.ts';
import {
  echo,
  listen,
  needLowPorts,
  PUBLIC,
  policyOf,
  type Rig,
  type RigOptions,
  startRig,
  until,
} from './support/rig.ts';

const MEGABYTE = 1024 * 1024;
const LOCAL = { allowedCidrs: ['127.0.1.0/24'] };

async function open(serve: (socket: Socket) => void, options: RigOptions = {}) {
  const destination = await listen(serve);
  const rig = await startRig({ policy: LOCAL, ...options });
  const { status, stream } = await rig.guest.ask(`${PUBLIC}:${destination.port}`);
  expect(status).toBe(200);
  return { ...rig, ...destination, stream };
}

/** Sends as fast as it is let. */
class Sender {
  sent = 0;
  readonly #total: number;

  constructor(total: number) {
    this.#total = total;
  }

  fill(socket: Socket): void {
    const piece = Buffer.alloc(MEGABYTE);
    while (this.sent < this.#total) {
      this.sent += piece.length;
      if (!socket.write(piece)) return void socket.once('drain', () => this.fill(socket));
    }
  }
}

const endOfOnly = async ({ ends }: Rig) => {
  await until(() => ends().length > 0);
  expect(ends()).toHaveLength(1);
  return ends()[0];
};

describe('what leaves and comes', () => {
  it('is told as it does, and only that', async () => {
    const sent: [string, number][] = [];
    let received = 0;
    const total = (): number => sent.reduce((sum, [, bytes]) => sum + bytes, 0);
    const rig = await open((socket) => void socket.on('data', () => socket.write('answer')), {
      sent: (sandboxId, bytes) => sent.push([sandboxId, bytes]),
      received: (_, bytes) => {
        received += bytes;
      },
    });
    rig.stream.on('data', () => {});
    rig.stream.write('question');
    await until(() => total() === 8 && received === 6);
    rig.stream.write(Buffer.alloc(2 * MEGABYTE));
    await until(() => total() === 8 + 2 * MEGABYTE);
    expect(new Set(sent.map(([id]) => id))).toEqual(new Set(['sbx_test']));
    expect(rig.ends()).toEqual([]);
    rig.stream.close();
  });
});

describe('a half-close', () => {
  it('of the guest leaves it reading, megabytes if need be', async () => {
    const answer = Buffer.alloc(4 * MEGABYTE, 'a');
    const rig = await open((socket) => {
      const asked = bytesOf(socket);
      void asked.then((bytes) => socket.end(Buffer.concat([bytes, answer])));
    });
    rig.stream.end('question');
    const bytes = await bytesOf(rig.stream);
    expect(bytes.length).toBe(8 + answer.length);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'closed', bytesSent: 8, bytesReceived: bytes.length });
    await until(() => rig.sockets.size === 0);
  });

  it('of the guest, who then reads late, loses nothing of the answer although the destination has closed long since', async () => {
    const answer = Buffer.alloc(8 * MEGABYTE, 'a');
    const rig = await open((socket) => socket.resume().once('end', () => socket.end(answer)));
    rig.stream.end();
    await until(() => rig.stream.readableLength > 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(rig.ends()).toEqual([]);
    expect((await bytesOf(rig.stream)).length).toBe(answer.length);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'closed', bytesReceived: answer.length });
  });

  it('of both leaves the guest what waits for room in its window when the destination is gone', async () => {
    const rig = await open((socket) => {
      socket.resume().once('end', () => {
        // A window of the guest's is 65,535 bytes; the end comes behind what fits.
        socket.write(Buffer.alloc(60_000));
        setTimeout(() => socket.end(Buffer.alloc(10_000)), 50);
      });
    });
    rig.stream.pause().end();
    await until(() => rig.stream.readableLength > 0);
    await until(() => rig.sockets.size === 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await bytesOf(rig.stream)).length).toBe(70_000);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'closed', bytesReceived: 70_000 });
  });

  it('of the destination leaves the guest writing', async () => {
    const received: Promise<Buffer>[] = [];
    const rig = await open((socket) => {
      socket.end('done');
      received.push(bytesOf(socket));
    });
    expect(String(await bytesOf(rig.stream))).toBe('done');
    const sent = Buffer.alloc(4 * MEGABYTE, 'b');
    rig.stream.end(sent);
    expect((await received[0])?.equals(sent)).toBe(true);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'closed', bytesSent: sent.length, bytesReceived: 4 });
  });

  it('of both, while the destination reads late, still delivers what the guest sent', async () => {
    let server: Socket | undefined;
    const rig = await open((socket) => {
      server = socket.pause();
      socket.end();
    });
    rig.stream.resume();
    const sent = Buffer.alloc(12 * MEGABYTE, 'b');
    rig.stream.end(sent);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(rig.ends()).toEqual([]);
    expect((await bytesOf(server as Socket)).length).toBe(sent.length);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'closed', bytesSent: sent.length });
  });
});

describe('a reset', () => {
  it('by the destination is a reset for the guest, never an end', async () => {
    const rig = await open((socket) => {
      socket.write('half of an ans');
      socket.once('data', () => socket.resetAndDestroy());
    });
    rig.stream.resume();
    rig.stream.write('now');
    expect(await endOf(rig.stream)).toBe('reset');
    expect(rig.stream.rstCode).toBe(constants.NGHTTP2_CANCEL);
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'failed', reason: 'reset by the destination (ECONNRESET)' });
  });

  it.each([
    ['while both sides talk', (_socket: Socket) => {}],
    ['after the destination has ended', (socket: Socket) => void socket.end()],
  ])('by the guest is a reset for the destination: %s', async (_when, atFirst) => {
    const seen: string[] = [];
    const rig = await open((socket) => {
      for (const event of ['end', 'error', 'close']) socket.on(event, () => seen.push(event));
      socket.resume();
      atFirst(socket);
    });
    rig.stream.resume();
    await new Promise((resolve) => setTimeout(resolve, 50));
    resetStream(rig.stream);
    await until(() => seen.includes('close'));
    expect(await endOfOnly(rig)).toMatchObject({ outcome: 'failed', reason: 'reset by the sandbox' });
    expect(seen).toEqual(['error', 'close']);
    expect(rig.warnings).toEqual([]);
  });

  it('does not count bytes that were still waiting to be sent', async () => {
    const rig = await open((socket) => void socket.pause());
    rig.stream.write(Buffer.alloc(32 * MEGABYTE));
    await new Promise((resolve) => setTimeout(resolve, 200));
    resetStream(rig.stream);
    const end = await endOfOnly(rig);
    expect(end?.bytesSent).toBeLessThan(16 * MEGABYTE);
  });
});

describe('a stalled reader', () => {
  const BIG = 64 * MEGABYTE;

  it('in the guest stops the destination from being read', async () => {
    const sender = new Sender(BIG);
    const { stream } = await open((socket) => sender.fill(socket));
    stream.pause();
    await until(() => sender.sent > 0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // What the kernel's buffers and one window hold.
    expect(sender.sent).toBeLessThan(BIG / 2);
    let got = 0;
    stream
      .on('data', (chunk: Buffer) => {
        got += chunk.length;
      })
      .resume();
    await until(() => got === BIG);
  });

  it('at the destination stops the guest', async () => {
    let server: Socket | undefined;
    const { stream } = await open((socket) => {
      server = socket.pause();
    });
    let taken = 0;
    const piece = Buffer.alloc(MEGABYTE);
    for (let sent = 0; sent < BIG; sent += piece.length) stream.write(piece, () => (taken += piece.length));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(taken).toBeLessThan(BIG / 2);
    let got = 0;
    server
      ?.on('data', (chunk: Buffer) => {
        got += chunk.length;
      })
      .resume();
    await until(() => got === BIG);
  });
});

describe('the bandwidth of a sandbox', () => {
  it('is shared by its connections, both directions together', async () => {
    const { port } = await listen(echo);
    const { guest } = await startRig({ policy: LOCAL, bytesPerSecond: 4 * MEGABYTE });
    const startedAt = performance.now();
    await Promise.all(
      [1, 2].map(async () => {
        const { stream } = await guest.ask(`${PUBLIC}:${port}`);
        stream.end(Buffer.alloc(MEGABYTE));
        expect((await bytesOf(stream)).length).toBe(MEGABYTE);
      }),
    );
    // 4 MB, of which a quarter of a second's worth is free.
    expect(performance.now() - startedAt).toBeGreaterThan(600);
  });
});

describe('an open connection', () => {
  it('on which nothing moves is cut after a while', async () => {
    const { port } = await listen(() => {});
    const socket = createConnection({ host: PUBLIC, port, allowHalfOpen: true });
    await once(socket, 'connect');
    // As the gateway makes it, but with a patience that a test has.
    const flow = Promise.withResolvers<Flow>();
    const server = createServer().on('stream', (stream) => {
      stream.respond({ ':status': 200 });
      const bandwidth = new Bandwidth(Number.POSITIVE_INFINITY);
      flow.resolve(new Flow({ stream, intake: new Intake(stream), socket, check: undefined, bandwidth, idleMs: 100 }));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const session = connect(`http://127.0.0.1:${(server.address() as { port: number }).port}`);
    onTestFinished(() => {
      session.destroy();
      server.close();
    });
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'idle.test:1' }, { endStream: false });
    stream.on('error', () => {}).resume();
    expect(await (await flow.promise).ended).toMatchObject({
      outcome: 'cut',
      reason: 'nothing was sent or received for 0.1 s',
    });
    expect(await endOf(stream)).toBe('reset');
    expect(socket.destroyed).toBe(true);
  });

  it('is cut by a policy that forbids it, and no other is', async () => {
    const { port } = await listen(echo);
    const { guest, dns, link, ends } = await startRig({
      policy: { allowedDomains: [`a.test:${port}`, `b.test:${port}`], allowedCidrs: ['127.0.1.8/32'] },
    });
    dns.host('a.test', PUBLIC);
    dns.host('b.test', PUBLIC);
    const a = (await guest.ask(`a.test:${port}`)).stream.resume();
    const b = (await guest.ask(`b.test:${port}`)).stream.resume();
    link.setPolicy(policyOf({ allowedDomains: [`b.test:${port}`] }));
    expect(await endOf(a)).toBe('reset');
    expect(ends()).toMatchObject([{ host: 'a.test', outcome: 'cut', allowed: true }]);
    expect(ends()[0]?.reason).toMatch(/^the policy changed: no rule allows a\.test/);
    b.end('still here');
    expect(String(await bytesOf(b))).toBe('still here');
    // Whoever asks again meets the new policy.
    expect((await guest.ask(`a.test:${port}`)).status).toBe(403);
  });

  it('that is not checked is cut when a new policy wants the check', async (context) => {
    needLowPorts(context);
    const front = '127.0.1.81';
    await listen(echo, front, 80);
    const { guest, dns, link, ends } = await startRig({ policy: { allowHttp: true } });
    dns.host('a.test', front);
    const { stream } = await guest.ask('a.test:80');
    stream.resume();
    link.setPolicy(policyOf({ allowedDomains: ['a.test'] }));
    expect(await endOf(stream)).toBe('reset');
    expect(ends()).toMatchObject([{ outcome: 'cut', reason: expect.stringContaining('has to be checked now') }]);
  });

  it('is not opened when the policy changes while its name is looked up', async () => {
    const { port, sockets } = await listen(echo);
    const rig = await startRig({ policy: { allowedDomains: [`a.test:${port}`] } });
    rig.dns.zones.set('a.test', () => {
      rig.link.setPolicy(policyOf());
      return [{ type: 'A', name: 'a.test', ttl: 0, data: PUBLIC }];
    });
    expect(await rig.guest.ask(`a.test:${port}`)).toMatchObject({ status: 403, rule: 'default_deny' });
    expect(sockets.size).toBe(0);
    expect(rig.records).toMatchObject([{ outcome: 'denied' }]);
  });
});
