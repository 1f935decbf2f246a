/** What hostile or careless input meets: each has a defined answer, and the sandbox and its neighbours lose nothing. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;

beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'qemu' });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
});
afterAll(async () => {
  await sandbox?.delete();
  client?.close();
  // Also asserts that no process, socket or overlay is left.
  await daemon?.stop();
});

const post = async (path: string, body: unknown) => {
  const headers = { 'x-api-key': daemon.apiKey, 'content-type': 'application/json' };
  const answer = await fetch(daemon.baseUrl + path, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: answer.status, body: (await answer.json()) as { detail: string; code: string } };
};

/** The agent and the shell still answer. */
const expectAlive = async (): Promise<void> => {
  expect((await sandbox.run('echo alive')).stdoutText).toBe('alive\n');
};

/** @param which processes, as pgrep has it, of whom none may stay */
const expectNone = (which: string): Promise<void> =>
  expect.poll(async () => (await sandbox.run(`pgrep ${which} || echo none`)).stdoutText).toBe('none\n');

describe('a request that is not as it should be', () => {
  it('is refused with the unknown or malformed field named', async () => {
    const unknown = await post('/v2/sandboxes', { memroy_mb: 512 });
    expect(unknown).toMatchObject({ status: 422, body: { code: 'invalid_argument' } });
    expect(unknown.body.detail).toContain('memroy_mb');
    const malformed = await post('/execute', { session_id: sandbox.id, command: 'true', timeout: 'soon' });
    expect(malformed).toMatchObject({ status: 422 });
    expect(malformed.body.detail).toContain('timeout');
  });

  it('is refused when it is too large', async () => {
    const { status, body } = await post('/execute', { session_id: sandbox.id, command: 'x'.repeat(20_000_000) });
    expect([status, body.code]).toEqual([413, 'body_too_large']);
  });

  it('is refused when a text for the guest holds a NUL', async () => {
    expect((await post('/execute', { session_id: sandbox.id, command: 'echo a\0b' })).status).toBe(422);
    await expect(sandbox.files.read('/etc/\0')).rejects.toMatchObject({ status: 422 });
  });
});

describe('a path that is not what it seems', () => {
  it('cannot leave its directory by dots or by links', async () => {
    await sandbox.run(
      'mkdir -p /workspace/in && ln -sfn /etc /workspace/in/link && ln -sf /etc/passwd /workspace/in/leaf',
    );
    const within = ['/workspace/in'];
    for (const path of ['/workspace/in/../../etc/passwd', '/workspace/in/link/passwd', '/workspace/in/leaf']) {
      await expect(sandbox.files.read(path, { within }), path).rejects.toMatchObject({ code: 'path_escape' });
      await expect(sandbox.files.write(path, 'x', { within }), path).rejects.toMatchObject({ code: 'path_escape' });
    }
    expect((await sandbox.run('id -un')).stdoutText).toBe('root\n');
  });

  it('is listed with its exact name when that is not UTF-8', async () => {
    await sandbox.run("mkdir -p /root/names && touch $'/root/names/\\xff\\xfe'");
    const [entry] = await sandbox.files.list('/root/names');
    expect(Buffer.from(entry?.nameBase64 ?? '', 'base64')).toEqual(Buffer.from([0xff, 0xfe]));
  });

  it('does not hang on a FIFO or a device', async () => {
    await sandbox.run('rm -f /root/fifo; mkfifo /root/fifo');
    await expect(sandbox.files.read('/root/fifo')).rejects.toMatchObject({ code: 'file_not_a_file' });
    await expect(sandbox.files.read('/dev/zero')).rejects.toMatchObject({ code: 'file_not_a_file' });
  });
});

describe('output', () => {
  it('of 100 MB arrives whole', async () => {
    let size = 0;
    const exec = await sandbox.exec('head -c 100000000 /dev/zero');
    for await (const chunk of exec.stdout) size += chunk.length;
    expect(size).toBe(100_000_000);
    expect((await exec.wait()).exitCode).toBe(0);
  });

  it('that is binary stays as it is', async () => {
    const { stdout } = await sandbox.run('printf "\\000\\001\\377\\376\\r\\n"');
    expect(Buffer.from(stdout)).toEqual(Buffer.from([0, 1, 255, 254, 13, 10]));
  });

  it('faster than its reader waits for it, and holds up nobody else', async () => {
    const flood = await sandbox.exec('yes');
    const reader = flood.stdout[Symbol.asyncIterator]();
    await reader.next();
    await expectAlive();
    flood.close();
    await expectAlive();
    await expectNone('-x yes');
  });
});

describe('a command that misbehaves', () => {
  it('is killed at its time limit though it ignores SIGTERM, with what it started', async () => {
    const result = await sandbox.run("trap '' TERM; (trap '' TERM; sleep 300) & echo begun; sleep 300", {
      timeoutMs: 3_000,
    });
    expect(result).toMatchObject({ exitCode: 124, timedOut: true, stdoutText: 'begun\n' });
    // Killed, which is not yet gone.
    await expectNone('-x sleep');
  });

  it('ends with its connection', async () => {
    const exec = await sandbox.exec('exec sleep 301');
    exec.close();
    await expectNone('-fx "sleep 301"');
  });

  it('cannot take the agent down by forking', async () => {
    // The shell that began it waits without needing a process more, so that the limit finds all of it in one group.
    const script = 'mkfifo /tmp/never; exec 3<>/tmp/never; :(){ :|:& };:; read -u 3';
    const bomb = await sandbox.run(script, { timeoutMs: 4_000 });
    expect(bomb).toMatchObject({ exitCode: 124, timedOut: true });
    await expectAlive();
    await sandbox.run(['bash', '-c', 'kill -9 -1'], { timeoutMs: 20_000 }).catch(() => {});
    await expect
      .poll(async () => (await sandbox.run(['echo', 'alive']).catch(() => ({ stdoutText: '' }))).stdoutText)
      .toBe('alive\n');
  });

  it('leaves others their answers when many run at once', async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, (_, n) => sandbox.run(['echo', String(n)])));
    expect(answers.map(({ stdoutText }) => stdoutText)).toEqual(answers.map((_, n) => `${n}\n`));
  });
});

describe('a resource that runs out', () => {
  it('is named when it is the disk, and the sandbox works again after a removal', async () => {
    const full = await client.sandboxes.create();
    try {
      await full.run(
        'fallocate -l 100G /root/fill 2>/dev/null; fallocate -l $(($(df --output=avail -B1 / | tail -1) - 1048576)) /root/fill',
      );
      await expect(full.files.write('/root/more', Buffer.alloc(16_000_000))).rejects.toMatchObject({
        code: 'guest_disk_full',
      });
      await expect(full.files.stat('/root/more')).rejects.toMatchObject({ code: 'file_not_found' });
      await full.files.remove('/root/fill');
      await full.files.write('/root/more', 'fits');
    } finally {
      await full.delete();
    }
  });

  it('is the guest itself when it halts under a command: the sandbox is failed, its neighbour is not', async () => {
    const doomed = await client.sandboxes.create();
    const exec = await doomed.exec('sleep 300');
    const halted = doomed.run('echo o > /proc/sysrq-trigger; sleep 5').catch((error: unknown) => error);
    await expect(exec.wait()).rejects.toMatchObject({
      code: expect.stringMatching(/guest_lost|connection_lost|guest_unresponsive/),
    });
    await halted;
    await expect.poll(async () => (await doomed.info()).state).toBe('failed');
    expect((await doomed.info()).stateReason).not.toBe(null);
    await expectAlive();
    await doomed.delete();
  });
});

describe('the sandbox', () => {
  it('has no way out but the package registries: what is refused is refused at once', async () => {
    const started = performance.now();
    const { exitCode } = await sandbox.run('curl -s -m 200 https://example.org || curl -s -m 200 http://192.0.2.1');
    // CURLE_COULDNT_CONNECT: not a timeout.
    expect(exitCode).toBe(7);
    expect(performance.now() - started).toBeLessThan(100_000);
  });

  it("is not another account's, and an unknown one is the same", async () => {
    const stranger = new InstaVM({ apiKey: 'instavm_sk_wrong', baseUrl: daemon.baseUrl });
    await expect(stranger.sandboxes.get(sandbox.id)).rejects.toMatchObject({ status: 401 });
    await expect(client.sandboxes.get(crypto.randomUUID())).rejects.toMatchObject({ code: 'sandbox_not_found' });
    stranger.close();
  });

  it('ends once, however often it is asked', async () => {
    const short = await client.sandboxes.create();
    await Promise.all([short.delete(), short.delete()]);
    expect((await short.info()).state).toBe('stopped');
  });
});
