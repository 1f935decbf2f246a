/** Terminals over the contract's routes and WebSocket. The fake guest runs them in the real agent. */
import { createHash } from 'node:crypto';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type Api, apiOf } from './api.ts';
import { PtySocket, refusal, type ViewerOptions } from './pty-socket.ts';

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('a terminal', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  let vm: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession({ env: { GREETING: 'from the sandbox' } });
    vm = (await api.request('GET', `/v1/sessions/status/${id}`)).body.vm_id;
  });
  afterAll(() => daemon.stop());

  const base = (): string => `/v1/sessions/${id}/pty/sessions`;
  const create = async (fields: object): Promise<Answer> => api.json('POST', base(), fields);
  const created = async (fields: object): Promise<string> => {
    const answer = await create(fields);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    return answer.body.session_id;
  };
  const attach = (pty: string, options?: ViewerOptions): PtySocket => new PtySocket(api, id, pty, options);
  const run = async (fields: object): Promise<PtySocket> => {
    const viewer = attach(await created(fields));
    await viewer.closed;
    return viewer;
  };

  it('is made with the id of the caller, listed, described, and found under the VM as well', async () => {
    const pty = await created({ id: 'mine-1', cols: 100, rows: 30, argv: ['sleep', '60'] });
    expect(pty).toBe('mine-1');
    const expected = {
      session_id: 'mine-1',
      id: 'mine-1',
      alive: true,
      exit_code: null,
      cols: 100,
      rows: 30,
      viewers: 0,
    };
    for (const path of [`${base()}/mine-1`, `/v1/vms/${vm}/pty/sessions/mine-1`])
      expect((await api.request('GET', path)).body).toMatchObject(expected);
    const listed = (await api.request('GET', base())).body.sessions.map((one: { id: string }) => one.id);
    expect(listed).toContain('mine-1');
    expect((await create({ id: 'mine-1' })).body.code).toBe('pty_exists');
    expect((await api.request('DELETE', `${base()}/mine-1`)).body).toEqual({ success: true, existed: true });
    expect((await api.request('GET', `${base()}/mine-1`)).body.code).toBe('pty_not_found');
  });

  it('tells the end after all output, with the exit code, and closes with 1000', async () => {
    const viewer = await run({ command: 'test -t 0 && echo "$GREETING on $(tput cols)"; exit 7', cols: 91 });
    expect(viewer.text).toBe('from the sandbox on 91\r\n');
    expect(viewer.frames[0]).toMatchObject({ type: 'attached', offset: 0, pty: { cols: 91 } });
    expect(viewer.exit).toEqual({ type: 'exit', exit_code: 7, signal: null });
    expect(await viewer.closed).toBe(1000);
  });

  it('names the signal that ended the program', async () => {
    expect((await run({ command: 'kill -9 $$' })).exit).toMatchObject({ exit_code: 137, signal: 'SIGKILL' });
  });

  it('is a login shell unless told otherwise; what is typed before the prompt is kept', async () => {
    const viewer = attach(await created({}));
    await viewer.opened();
    viewer.type('shopt -q login_shell && echo login: $((40 + 2))\nexit 3\n');
    await viewer.closed;
    expect(viewer.text).toContain('login: 42');
    expect(viewer.exit).toMatchObject({ exit_code: 3 });
  });

  it('keeps what was written before anyone attached, and the end too', async () => {
    const pty = await created({ argv: ['sh', '-c', 'echo early; exit 5'] });
    await expect.poll(async () => (await api.request('GET', `${base()}/${pty}`)).body.alive).toBe(false);
    const viewer = attach(pty);
    await viewer.closed;
    expect([viewer.text, viewer.exit?.exit_code]).toEqual(['early\r\n', 5]);
  });

  it('takes a new window size from a frame and from the route, and tells other viewers', async () => {
    const pty = await created({
      argv: ['bash', '-c', "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"],
    });
    const [typist, watcher] = [attach(pty), attach(pty, { query: { read_only: 'true' } })];
    await expect.poll(() => typist.text).toContain('ready');
    await expect.poll(() => watcher.text).toContain('ready');
    typist.send({ type: 'resize', cols: 111, rows: 22 });
    await expect.poll(() => typist.text).toContain('22 111');
    await expect.poll(() => watcher.frames).toContainEqual({ type: 'resized', cols: 111, rows: 22 });
    expect((await api.json('POST', `${base()}/${pty}/resize`, { cols: 70, rows: 20 })).body).toMatchObject({
      cols: 70,
    });
    await expect.poll(() => typist.text).toContain('20 70');
    expect((await api.json('POST', `${base()}/${pty}/resize`, { cols: 0, rows: 20 })).status).toBe(422);
  });

  it('passes Ctrl-C and chosen signals to the foreground program', async () => {
    const pty = await created({ argv: ['bash', '--norc', '--noediting', '-i'] });
    const viewer = attach(pty);
    await viewer.opened();
    // It says itself that it is in the foreground: the terminal echoes what is typed before the shell has read it.
    viewer.type("sh -c 'echo $((40 + 2)); exec sleep 100'\n");
    await expect.poll(() => viewer.text).toContain('\n42\r\n');
    viewer.type('\x03');
    viewer.type('echo "code $?"\n');
    await expect.poll(() => viewer.text).toContain('code 130');
    viewer.type("python3 -c 'import time; print(1 + 1); time.sleep(100)'\n");
    await expect.poll(() => viewer.text).toContain('\n2\r\n');
    expect((await api.json('POST', `${base()}/${pty}/signal`, { signal: 'SIGTERM' })).status).toBe(200);
    viewer.type('echo "now $?"\n');
    await expect.poll(() => viewer.text).toContain('now 143');
    expect((await api.json('POST', `${base()}/${pty}/signal`, { signal: 'SIGKILL', session: true })).status).toBe(200);
    await viewer.closed;
    expect(viewer.exit).toMatchObject({ exit_code: 137 });
  });

  it('lives on without its client, which comes back for exactly the rest', async () => {
    const size = 10_000_000;
    const script = `stty raw -echo; head -c ${size} /dev/urandom > data; sha256sum data > sum; echo go; cat data; exit 4`;
    const pty = await created({ argv: ['bash', '-c', script] });
    const received: Buffer[] = [];
    let exit: Record<string, unknown> | undefined;
    let offset = 0;
    for (let cuts = 0; exit === undefined; cuts++) {
      const viewer = attach(pty, { query: { offset: String(offset), ack: 'true' } });
      viewer.socket.on('message', (_data, isBinary) => {
        if (!isBinary) return;
        // Cut in the midst of the burst, a few times; then stay.
        if (cuts < 5 && viewer.bytes.length > 500_000) viewer.leave();
        else viewer.send({ type: 'ack', offset: viewer.offset });
      });
      await viewer.closed;
      expect(viewer.frames[0]).toMatchObject({ type: 'attached', offset });
      received.push(viewer.bytes);
      offset += viewer.bytes.length;
      exit = viewer.exit;
    }
    expect(exit).toMatchObject({ exit_code: 4 });
    const bytes = Buffer.concat(received).subarray('go\n'.length);
    expect(bytes).toHaveLength(size);
    const sum = (await api.execute(id, 'cat sum')).body.stdout;
    expect(sum.slice(0, 64)).toBe(sha256(bytes));
  });

  it('never splits a character between frames, however slowly its bytes come', async () => {
    const text = '日本語 🦀 naïve';
    const script = `import sys,time\nfor b in ${JSON.stringify(text)}.encode():\n  sys.stdout.buffer.write(bytes([b])); sys.stdout.flush(); time.sleep(0.02)`;
    const viewer = await run({ argv: ['python3', '-c', script] });
    expect(viewer.text).toBe(text);
    const strict = new TextDecoder('utf-8', { fatal: true });
    for (const piece of viewer.pieces) strict.decode(piece);
  });

  it('passes bytes that are no text unchanged', async () => {
    const script = 'stty -opost; python3 -c "import sys; sys.stdout.buffer.write(bytes(range(256)))"';
    const viewer = await run({ argv: ['bash', '-c', script] });
    expect(viewer.bytes).toEqual(Buffer.from(Array.from({ length: 256 }, (_, index) => index)));
  });

  it('shows the same to several viewers, and takes nothing from one who may only read', async () => {
    const pty = await created({ argv: ['cat'] });
    const [typist, watcher] = [attach(pty), attach(pty, { query: { read_only: 'true' } })];
    await Promise.all([typist.opened(), watcher.opened()]);
    watcher.type('not me\n');
    watcher.send({ type: 'resize', cols: 10, rows: 10 });
    typist.type('hello\n');
    for (const viewer of [typist, watcher]) await expect.poll(() => viewer.text).toBe('hello\r\nhello\r\n');
    expect((await api.request('GET', `${base()}/${pty}`)).body).toMatchObject({ viewers: 2, cols: 80 });
    typist.leave();
    watcher.leave();
  });

  it('holds a flood for a client that does not read, and stays small', async () => {
    const before = await rssKib(daemon.pid);
    const pty = await created({ argv: ['yes'] });
    const viewer = attach(pty, { query: { ack: 'true' } });
    await expect.poll(() => viewer.bytes.length).toBeGreaterThan(100_000);
    const held = async (): Promise<number> => (await api.request('GET', `${base()}/${pty}`)).body.end_offset;
    let last = -1;
    const rests = async (): Promise<boolean> => {
      const earlier = last;
      last = await held();
      return last === earlier;
    };
    await expect.poll(rests, { interval: 200 }).toBe(true);
    // Nothing was acknowledged: the window went out, the rest waits in the guest.
    expect(viewer.bytes.length).toBeLessThanOrEqual(300_000);
    expect(last).toBeLessThanOrEqual(1_200_000);
    const echo = attach(await created({ argv: ['cat'] }));
    await echo.opened();
    echo.type('quick\n');
    await expect.poll(() => echo.text).toContain('quick\r\nquick');
    viewer.send({ type: 'ack', offset: viewer.offset });
    await expect.poll(held).toBeGreaterThan(last);
    expect((await rssKib(daemon.pid)) - before).toBeLessThan(64 * 1024);
    await api.request('DELETE', `${base()}/${pty}`);
    viewer.leave();
    echo.leave();
  });

  it('is deleted as often as one likes, also when it never was', async () => {
    const pty = await created({ argv: ['sleep', '60'] });
    const viewer = attach(pty);
    await viewer.opened();
    expect((await api.request('DELETE', `${base()}/${pty}`)).body.existed).toBe(true);
    await viewer.closed;
    expect(viewer.exit).toMatchObject({ signal: 'SIGHUP' });
    for (const unknown of [pty, 'pty-000000000000', 'no%20id'])
      expect(await api.request('DELETE', `${base()}/${unknown}`)).toMatchObject({
        status: 200,
        body: { existed: false },
      });
  });

  it('is forgotten when nobody looks at it for its linger time', async () => {
    const startedAt = performance.now();
    const path = `${base()}/${await created({ argv: ['sleep', '60'], linger_seconds: 1 })}`;
    await expect.poll(async () => (await api.request('GET', path)).status).toBe(404);
    expect(performance.now() - startedAt).toBeGreaterThan(990);
  });

  it('ignores what is no frame of the protocol', async () => {
    const pty = await created({ argv: ['bash', '-c', 'read line; echo "got $line"'] });
    const viewer = attach(pty);
    await viewer.opened();
    const nonsense = fc.oneof(
      fc.string(),
      fc.json(),
      fc.record({
        type: fc.constantFrom('resize', 'ack', 'exit', 'signal'),
        cols: fc.anything(),
        offset: fc.anything(),
      }),
    );
    for (const frame of fc.sample(nonsense, 300)) {
      viewer.send(typeof frame === 'string' ? frame : (stringified(frame) ?? ''));
    }
    viewer.type('all the same\n');
    await viewer.closed;
    expect(viewer.text).toContain('got all the same');
    expect(viewer.exit).toMatchObject({ exit_code: 0 });
  });

  it.each([
    ['an id that is no id', { id: 'a/b' }],
    ['no columns', { cols: 0 }],
    ['too many rows', { rows: 70_000 }],
    ['two things to run', { shell: '/bin/sh', command: 'ls' }],
    ['an unknown field', { size: 3 }],
    ['a NUL', { command: 'a\0b' }],
  ])('is not made with %s', async (_what, fields) => {
    expect(await create(fields)).toMatchObject({ status: 422, body: { code: 'invalid_argument' } });
  });

  it.each([
    ['a program that is not there', { argv: ['no-such-program'] }, 'command_not_found'],
    ['a user that is not there', { user: 'nobody-like-this' }, 'user_unknown'],
    ['a directory that is not there', { cwd: '/none' }, 'cwd_not_found'],
  ])('is not made for %s', async (_what, fields, code) => {
    expect((await create(fields)).body.code).toBe(code);
  });

  describe('is opened', () => {
    it('by a key in the query, as the contract has it, which is not logged', async () => {
      const viewer = attach(await created({ argv: ['true'] }), { headers: {}, query: { api_key: daemon.apiKey } });
      expect(await viewer.closed).toBe(1000);
      expect(daemon.log()).not.toContain(daemon.apiKey);
    });

    it('under its VM', async () => {
      const viewer = new PtySocket(api, vm, await created({ argv: ['true'] }), { scope: 'vms' });
      expect(await viewer.closed).toBe(1000);
    });

    it('by a token, once, and only that terminal', async () => {
      const [pty, other] = [await created({ argv: ['cat'] }), await created({ argv: ['cat'] })];
      const token = async (fields?: object): Promise<string> =>
        (await api.json('POST', `${base()}/${pty}/token`, fields ?? {})).body.token;
      const first = await token({ read_only: true });
      const viewer = attach(pty, { headers: {}, query: { token: first } });
      await viewer.opened();
      viewer.type('may not\n');
      const again = attach(pty, { headers: {}, query: { token: first } });
      expect(await again.closed).toBe(4401);
      expect(await refusal(attach(other, { headers: {}, query: { token: await token() } }))).toEqual([
        403,
        'permission_denied',
      ]);
      expect(viewer.text).toBe('');
      expect(daemon.log()).not.toContain(first);
      expect((await api.request('POST', `${base()}/nowhere/token`)).status).toBe(404);
      viewer.leave();
    });

    it('not without a valid key: the connection closes with 4401', async () => {
      for (const options of [
        { headers: {} },
        { headers: {}, query: { api_key: 'wrong' } },
        { headers: {}, query: { token: 'x' } },
      ]) {
        const viewer = attach('any', options);
        expect([await viewer.closed, viewer.closeReason]).toEqual([4401, 'unauthenticated']);
      }
    });

    it('not when it or its sandbox does not exist: refused before the upgrade', async () => {
      expect(await refusal(attach('none'))).toEqual([404, 'pty_not_found']);
      const stranger = new PtySocket(api, '00000000-0000-4000-8000-000000000000', 'x');
      expect(await refusal(stranger)).toEqual([404, 'sandbox_not_found']);
      expect(await refusal(attach('x', { query: { offset: '-1' } }))).toEqual([422, 'invalid_argument']);
    });
  });

  it('says that the sandbox was lost, and not that the program ended', async () => {
    const mortal = await api.createSession();
    const pty = (await api.json('POST', `/v1/sessions/${mortal}/pty/sessions`, { argv: ['sh', '-c', 'echo up; cat'] }))
      .body;
    const viewer = new PtySocket(api, mortal, pty.id);
    await expect.poll(() => viewer.text).toBe('up\r\n');
    await api.json('POST', '/kill', { session_id: mortal });
    expect(await viewer.closed).toBe(1011);
    expect(viewer.exit).toBeUndefined();
    expect((await api.request('DELETE', `/v1/sessions/${mortal}/pty/sessions/${pty.id}`)).body.existed).toBe(false);
    expect((await api.request('GET', `/v1/sessions/${mortal}/pty/sessions`)).status).toBe(409);
  });
});

function stringified(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    // BigInts and cycles, which no client could send either.
    return undefined;
  }
}

async function rssKib(pid: number): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  return Number(/^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}
