/** Terminals of the TypeScript client, against a daemon whose fake guest runs them in the real agent. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, connect as openSocket, type Server, type Socket } from 'node:net';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, InstaVMError, type Pty, type PtyNotice, type Sandbox } from 'instavm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';

const EXIT = '{"type":"exit","exit_code":0,"signal":null}';

/** A way to the daemon that can be cut. */
class Cable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** While false, new connections are refused at once. */
  isUp = true;

  constructor(target: URL) {
    this.#server = createServer((socket) => {
      if (!this.isUp) return socket.destroy();
      const onward = openSocket(Number(target.port), target.hostname);
      for (const one of [socket, onward]) {
        this.#sockets.add(one);
        one.on('error', () => {}).once('close', () => this.#sockets.delete(one));
      }
      socket.pipe(onward).pipe(socket);
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}

async function text(pty: Pty): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of pty.output) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** Collects in the background, for tests that type while they read. */
function follow(pty: Pty): { text(): string; readonly ended: Promise<void> } {
  let all = '';
  const decoder = new TextDecoder();
  const ended = (async () => {
    for await (const chunk of pty.output) all += decoder.decode(chunk, { stream: true });
  })();
  ended.catch(() => {});
  return { text: () => all, ended };
}

describe('a terminal of the client', () => {
  let daemon: TestDaemon;
  let cable: Cable;
  let client: InstaVM;
  let sandbox: Sandbox;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    cable = new Cable(new URL(daemon.baseUrl));
    client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: await cable.listen() });
    sandbox = await client.sandboxes.create();
  });
  afterAll(async () => {
    client.close();
    cable.close();
    await daemon.stop();
  });

  it('runs a program, gives its output and its end', async () => {
    const pty = await sandbox.pty.create({
      argv: ['sh', '-c', 'tty >/dev/null && stty size; exit 6'],
      cols: 99,
      rows: 11,
    });
    expect(await text(pty)).toBe('11 99\r\n');
    expect(await pty.wait()).toEqual({ exitCode: 6, signal: null });
    await expect(pty.write('x')).rejects.toMatchObject({ code: 'pty_ended' });
  });

  it('types, resizes and signals', async () => {
    // Traps run between two reads, and one that runs out of time keeps what it had.
    const reading = 'if read -t 0.1 part; then echo "got $line$part"; line=; else line+=$part; fi';
    const script = `trap 'stty size' WINCH; trap 'echo interrupted; exit 8' INT; echo ready; while :; do ${reading}; done`;
    const pty = await sandbox.pty.create({ argv: ['bash', '-c', script] });
    const output = follow(pty);
    await expect.poll(output.text).toContain('ready');
    await pty.write('hello\n');
    await expect.poll(output.text).toContain('got hello');
    await pty.resize(101, 33);
    await expect.poll(output.text).toContain('33 101');
    await pty.signal('SIGINT');
    expect(await pty.wait()).toEqual({ exitCode: 8, signal: null });
    await output.ended;
    expect(output.text()).toContain('interrupted');
  });

  it('is listed and described, and killed as often as one likes', async () => {
    const pty = await sandbox.pty.create({ argv: ['sleep', '60'], id: 'a-b.c', user: '', lingerSeconds: 9 });
    expect(await sandbox.pty.get('a-b.c')).toMatchObject({ id: 'a-b.c', alive: true, viewers: 1, lingerSeconds: 9 });
    expect((await sandbox.pty.list()).map(({ id }) => id)).toContain('a-b.c');
    await pty.kill();
    await sandbox.pty.kill('a-b.c');
    await expect(pty.wait()).resolves.toMatchObject({ signal: 'SIGHUP' });
    await expect(sandbox.pty.get('a-b.c')).rejects.toMatchObject({ code: 'pty_not_found', status: 404 });
  });

  it('is attached by a second viewer, read-only, which sees the same', async () => {
    const pty = await sandbox.pty.create({ argv: ['cat'] });
    const notices: PtyNotice[] = [];
    const watcher = await sandbox.pty.attach(pty.id, { readOnly: true, onNotice: (notice) => notices.push(notice) });
    const [own, watched] = [follow(pty), follow(watcher)];
    await watcher.write('not this\n');
    await pty.write('this\n');
    await expect.poll(watched.text).toBe('this\r\nthis\r\n');
    await expect.poll(own.text).toBe(watched.text());
    await pty.resize(50, 10);
    await expect.poll(() => notices).toEqual([{ type: 'resized', cols: 50, rows: 10 }]);
    watcher.detach();
    await expect(watcher.wait()).rejects.toMatchObject({ code: 'pty_detached' });
    expect((await sandbox.pty.get(pty.id)).alive).toBe(true);
    await pty.kill();
  });

  it('comes back by itself when its connection is cut, for exactly the rest', async () => {
    const size = 10_000_000;
    const script = `stty raw -echo; head -c ${size} /dev/urandom > bytes; sha256sum < bytes > sum; cat bytes; exit 3`;
    const notices: string[] = [];
    const pty = await sandbox.pty.create({ argv: ['bash', '-c', script], onNotice: ({ type }) => notices.push(type) });
    const hash = createHash('sha256');
    let received = 0;
    let nextCut = 700_000;
    for await (const chunk of pty.output) {
      hash.update(chunk);
      received += chunk.length;
      if (received > nextCut && nextCut < 5_000_000) {
        nextCut += 900_000;
        cable.cut();
      }
    }
    expect([received, await pty.wait()]).toEqual([size, { exitCode: 3, signal: null }]);
    expect((await sandbox.run('cat sum')).stdoutText.slice(0, 64)).toBe(hash.digest('hex'));
    expect(notices.filter((type) => type === 'reattached').length).toBeGreaterThanOrEqual(4);
  });

  it('types what was typed while it was disconnected', async () => {
    const notices: string[] = [];
    const pty = await sandbox.pty.create({ argv: ['cat'], onNotice: ({ type }) => notices.push(type) });
    const output = follow(pty);
    cable.isUp = false;
    cable.cut();
    // What is handed to a connection that is about to break may be lost with it.
    await expect.poll(() => notices).toEqual(['disconnected']);
    await pty.write('patient\n');
    cable.isUp = true;
    await expect.poll(output.text).toBe('patient\r\npatient\r\n');
    await pty.kill();
  });

  it('gives up at once on a terminal that is no more, and says why', async () => {
    const mortal = await client.sandboxes.create();
    const pty = await mortal.pty.create({ argv: ['cat'] });
    await mortal.delete();
    await expect(pty.wait()).rejects.toMatchObject({ code: 'invalid_state', status: 409 });
    await expect(text(pty)).rejects.toBeInstanceOf(InstaVMError);
    await expect(sandbox.pty.attach('never-was')).rejects.toMatchObject({ code: 'pty_not_found' });
    await expect(sandbox.pty.create({ argv: ['no-such-program'] })).rejects.toMatchObject({
      code: 'command_not_found',
    });
  });

  it('stops a program whose output nobody reads', async () => {
    const pty = await sandbox.pty.create({ argv: ['yes'] });
    let last = -1;
    const rests = async (): Promise<boolean> => {
      const earlier = last;
      last = (await sandbox.pty.get(pty.id)).endOffset;
      return last === earlier;
    };
    await expect.poll(rests, { interval: 200 }).toBe(true);
    expect(last).toBeLessThan(1_400_000);
    expect(pty.offset).toBeLessThan(400_000);
    await pty.kill();
  });

  it('gives a token that opens it once', async () => {
    const pty = await sandbox.pty.create({ argv: ['cat'] });
    const { token, expiresAt } = await sandbox.pty.token(pty.id, { readOnly: true });
    expect(token.length).toBeGreaterThan(30);
    expect(expiresAt.getTime()).toBeGreaterThan(Date.now());
    await pty.kill();
  });
});

describe('a terminal of the client, with a server that misbehaves', () => {
  let server: WebSocketServer;
  let client: InstaVM;
  let attach: () => Promise<Pty>;
  /** So many are refused as by a server that is about to be there. */
  let refusals = 0;
  beforeEach(async () => {
    refusals = 0;
    server = new WebSocketServer({
      ...{ host: '127.0.0.1', port: 0 },
      verifyClient: (_, done) => done(refusals-- <= 0, 503),
    });
    await once(server, 'listening');
    client = new InstaVM({ apiKey: 'k', baseUrl: `http://127.0.0.1:${(server.address() as { port: number }).port}` });
    attach = () => client.sandboxes.attach('00000000-0000-4000-8000-000000000000').pty.attach('p');
  });
  afterEach(() => {
    client.close();
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  /** @returns the server's end of the next connection, which is attached */
  const attached = async (): Promise<WebSocket> => {
    const [socket] = (await once(server, 'connection')) as [WebSocket];
    socket.send('{"type":"attached","offset":0}');
    return socket;
  };

  it('says how a killed program ended though the answer to the kill was faster, and waits for no end that does not come', async () => {
    const answering = createHttpServer((_request, response) => response.end('{"success":true,"existed":true}'));
    const viewers = new WebSocketServer({ server: answering });
    answering.listen(0, '127.0.0.1');
    await once(answering, 'listening');
    const { port } = answering.address() as { port: number };
    const own = new InstaVM({ apiKey: 'k', baseUrl: `http://127.0.0.1:${port}` });
    try {
      for (const [afterMs, end] of [
        [100, { exitCode: 0, signal: null }],
        [undefined, { code: 'pty_detached' }],
      ] as const) {
        viewers.once('connection', (socket: WebSocket) => {
          socket.send('{"type":"attached","offset":0}');
          answering.once('request', () => {
            if (afterMs !== undefined) setTimeout(() => socket.send(EXIT), afterMs);
          });
        });
        const pty = await own.sandboxes.attach('00000000-0000-4000-8000-000000000000').pty.attach('p');
        await pty.kill();
        expect(await pty.wait().catch((error: unknown) => error)).toMatchObject(end);
      }
    } finally {
      own.close();
      for (const socket of viewers.clients) socket.terminate();
      answering.close();
    }
  });

  it('survives frames that make no sense and keeps what does', async () => {
    server.on('connection', (socket: WebSocket) => {
      for (const frame of ['{', '[]', '"x"', 'null', '{"type":7}', '{"type":"attached","offset":3}', '{"type":"new"}'])
        socket.send(frame);
      socket.send(Buffer.from('abc'));
      socket.send(EXIT);
    });
    const pty = await attach();
    expect([await text(pty), pty.offset, await pty.wait()]).toEqual(['abc', 6, { exitCode: 0, signal: null }]);
  });

  it('keeps what is typed while the server closes the connection for the next one', async () => {
    const [first, pty] = await Promise.all([attached(), attach()]);
    // It has the client's answer, and does not yet end the connection.
    const end = vi.spyOn((first as unknown as { _socket: Socket })._socket, 'end').mockReturnThis();
    first.close(1001);
    await expect.poll(() => end).toHaveBeenCalled();
    await pty.write('patient');
    const second = attached();
    first.terminate();
    const [typed] = (await once(await second, 'message')) as [Buffer];
    expect(typed.toString()).toBe('patient');
    pty.detach();
  });

  it('does not come back in silence when what was typed was dropped', async () => {
    const [socket, pty] = await Promise.all([attached(), attach()]);
    const again = vi.fn();
    server.on('connection', again);
    socket.close(1011, 'pty_input_full');
    await expect(pty.wait()).rejects.toMatchObject({ code: 'pty_input_full' });
    expect(again).not.toHaveBeenCalled();
  });

  it('keeps the process that waits for it until it has come back', async () => {
    const { port } = server.address() as { port: number };
    const program = `import { InstaVM } from 'instavm';
      const client = new InstaVM({ apiKey: 'k', baseUrl: 'http://127.0.0.1:${port}' });
      const pty = await client.sandboxes.attach('one').pty.attach('p');
      console.log(JSON.stringify(await pty.wait()));`;
    const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', program]);
    child.stdout.setEncoding('utf8');
    let output = '';
    child.stdout.on('data', (piece) => {
      output += piece;
    });
    const ended = once(child, 'close');
    const first = await attached();
    // Each one that is refused makes it wait before the next.
    refusals = 2;
    first.terminate();
    const second = await attached();
    second.send(EXIT);
    second.close();
    expect([await ended, output]).toEqual([[0, null], '{"exitCode":0,"signal":null}\n']);
  });
});
