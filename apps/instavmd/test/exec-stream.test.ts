/** The WebSocket of one command. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Api, apiOf, ExecSocket, stream } from './api.ts';

describe('a streaming exec', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession();
  });
  afterAll(() => daemon.stop());

  it('tells pid, both streams and the end, then closes', async () => {
    const exec = await stream(api, id, { argv: ['bash', '-c', 'echo out; echo err >&2; exit 4'] });
    expect(exec.frames[0]).toMatchObject({ type: 'started', pid: expect.any(Number) });
    expect([exec.stdout.toString(), exec.stderr.toString()]).toEqual(['out\n', 'err\n']);
    expect(await exec.last()).toMatchObject({ type: 'exit', exit_code: 4, signal: null, timed_out: false });
    expect(await exec.closed).toBe(1000);
  });

  it('passes environment, directory and a script of any length', async () => {
    await api.request('PUT', `/v2/sandboxes/${id}/files?path=/workspace/sub/x&parents=true`, { body: 'x' });
    const script = `: ${'y'.repeat(300_000)}\necho "$A"; basename "$PWD"`;
    const exec = await stream(api, id, { script, env: { A: 'b c' }, cwd: '/workspace/sub' });
    expect(exec.stdout.toString()).toBe('b c\nsub\n');
  });

  it('carries bytes unchanged in both directions, also when all is sent at once', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const exec = new ExecSocket(api, id);
    await once(exec.socket, 'open');
    // One write of the kernel: start, input and its end arrive together.
    exec.socket.send(JSON.stringify({ type: 'start', argv: ['cat'], stdin: true }));
    for (let time = 0; time < 40; time++) exec.send(bytes);
    exec.send({ type: 'stdin_end' });
    expect(await exec.last()).toMatchObject({ exit_code: 0 });
    expect(exec.stdout.equals(Buffer.concat(Array(40).fill(bytes)))).toBe(true);
  });

  it('gives back 30 MB of input whole to a reader that stops for a while', async () => {
    const exec = new ExecSocket(api, id);
    await exec.start({ argv: ['cat'], stdin: true });
    exec.socket.pause();
    const piece = Buffer.alloc(1_000_000, 7);
    for (let time = 0; time < 30; time++) exec.send(piece);
    exec.send({ type: 'stdin_end' });
    await sleep(1500);
    exec.socket.resume();
    expect(await exec.last()).toMatchObject({ exit_code: 0 });
    expect(exec.stdout).toHaveLength(30_000_000);
  });

  it('stops a command whose output nobody reads, and holds little of it', async () => {
    const exec = new ExecSocket(api, id);
    await exec.start({ argv: ['cat', '/dev/zero'] });
    exec.socket.pause();
    await sleep(2500);
    exec.socket.terminate();
    const { body } = await api.execute(id, `grep VmRSS /proc/${daemon.pid}/status`);
    expect(Number(/(\d+) kB/.exec(body.stdout)?.[1])).toBeLessThan(450_000);
  });

  it('delivers signals', async () => {
    const exec = new ExecSocket(api, id);
    await exec.start({ script: "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done" });
    await expect.poll(() => exec.stdout.toString()).toBe('ready\n');
    exec.send({ type: 'signal', signal: 'SIGINT' });
    expect(await exec.last()).toMatchObject({ exit_code: 9 });
    expect(exec.stdout.toString()).toContain('got it');
  });

  it('names the signal that ended the command', async () => {
    const exec = await stream(api, id, { script: 'kill -9 $$' });
    expect(await exec.last()).toMatchObject({ exit_code: 137, signal: 'SIGKILL' });
  });

  it('ends a command at its timeout', async () => {
    const exec = await stream(api, id, { script: "trap '' TERM; sleep 30", timeout_ms: 300 });
    expect(await exec.last()).toMatchObject({ exit_code: 124, timed_out: true });
  });

  it('kills the command when the client leaves', async () => {
    const marker = `stream-${process.pid}-${Date.now()}`;
    const exec = new ExecSocket(api, id);
    await exec.start({ script: `exec -a ${marker} sleep 60` });
    const lives = async () => (await api.execute(id, `pgrep -fc '^${marker}'`)).body.stdout.trim();
    await expect.poll(lives).toBe('1');
    exec.socket.terminate();
    await expect.poll(lives).toBe('0');
  });

  it.each([
    ['a command that is not there', { argv: ['no-such-command'] }, 'command_not_found'],
    ['a directory that is not there', { argv: ['true'], cwd: '/none' }, 'cwd_not_found'],
    ['a user that is not there', { argv: ['true'], user: 'nobody-like-this' }, 'user_unknown'],
    ['neither command nor script', {}, 'invalid_argument'],
    ['both command and script', { argv: ['true'], script: 'true' }, 'invalid_argument'],
    ['an unknown field', { argv: ['true'], shell: 'zsh' }, 'invalid_argument'],
    ['a NUL', { argv: ['a\0b'] }, 'invalid_argument'],
  ])('answers %s with an error frame and closes with 4500', async (_what, fields, code) => {
    const exec = await stream(api, id, fields);
    expect(await exec.last()).toMatchObject({ type: 'error', code, retryable: 'no', hint: expect.any(String) });
    expect(await exec.closed).toBe(4500);
  });

  it('refuses input that was not announced, and text that is no JSON', async () => {
    const unannounced = new ExecSocket(api, id);
    await unannounced.start({ argv: ['sleep', '30'] });
    unannounced.send(Buffer.from('hello'));
    expect(await unannounced.last()).toMatchObject({ type: 'error', code: 'invalid_argument' });
    const garbage = new ExecSocket(api, id);
    await once(garbage.socket, 'open');
    garbage.socket.send('{nonsense');
    expect(await garbage.last()).toMatchObject({ type: 'error', code: 'malformed_request' });
  });

  it('tells when the guest dies under it', async () => {
    const mortal = await api.createSession();
    const running = new ExecSocket(api, mortal);
    await running.start({ argv: ['sleep', '60'] });
    await expect.poll(() => running.frames.length).toBe(1);
    await api.execute(mortal, 'poweroff');
    expect(await running.last()).toMatchObject({ type: 'error', code: 'guest_lost', retryable: 'unknown' });
  });

  describe('is refused before the upgrade', () => {
    const refusal = async (path: string, key: string): Promise<[number, string]> => {
      const socket = new WebSocket(daemon.baseUrl.replace('http', 'ws') + path, { headers: { 'x-api-key': key } });
      const [, response] = await once(socket, 'unexpected-response');
      let text = '';
      for await (const piece of response) text += piece;
      return [response.statusCode, JSON.parse(text).code];
    };

    it('without a valid key', async () => {
      expect(await refusal(`/v2/sandboxes/${id}/exec`, 'instavm_sk_wrong')).toEqual([401, 'unauthenticated']);
    });
    it('for an unknown sandbox', async () => {
      const path = '/v2/sandboxes/00000000-0000-4000-8000-000000000000/exec';
      expect(await refusal(path, daemon.apiKey)).toEqual([404, 'sandbox_not_found']);
    });
    it('for one that was ended', async () => {
      const ended = await api.createSession();
      await api.json('POST', '/kill', { session_id: ended });
      expect(await refusal(`/v2/sandboxes/${ended}/exec`, daemon.apiKey)).toEqual([409, 'invalid_state']);
    });
  });
});
