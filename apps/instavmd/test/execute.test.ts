/** `/execute`, `/execute_async` and their answers. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type Api, apiOf } from './api.ts';

describe('an execution', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession();
  });
  afterAll(() => daemon.stop());

  it('answers 200 with the exit code of a command that fails, and keeps the streams apart', async () => {
    const { status, body } = await api.execute(id, 'echo out; echo err >&2; exit 7');
    expect(status).toBe(200);
    expect(body).toMatchObject({ stdout: 'out\n', stderr: 'err\n', exit_code: 7 });
    expect(Date.parse(body.created_at)).toBeGreaterThan(0);
  });

  it('is Python when no language is given, and its variables persist', async () => {
    await api.json('POST', '/execute', { session_id: id, command: 'x = 20' });
    const { body } = await api.json('POST', '/execute', { session_id: id, code: 'print(x + 1)' });
    expect(body).toMatchObject({ stdout: '21\n', exit_code: 0 });
  });

  it('changes nothing in text, and replaces only what is no text', async () => {
    const { body } = await api.execute(id, String.raw`printf '  a\r\n\e[1m\0é😀\xff\xe2\x82'`);
    expect(body.stdout).toBe('  a\r\n\u001b[1m\0é😀\ufffd\ufffd');
  });

  it('returns 100 MB whole', async () => {
    const { body } = await api.execute(id, 'head -c 100000000 /dev/zero | tr "\\0" x', { timeout: 100 });
    expect(body.exit_code).toBe(0);
    expect(body.stdout).toHaveLength(100_000_000);
  });

  it('says so when the output is more than is collected', async () => {
    const { status, body } = await api.execute(id, 'cat /dev/zero', { timeout: 100 });
    expect([status, body.code]).toEqual([413, 'output_too_large']);
    expect((await api.execute(id, 'echo still here')).body.stdout).toBe('still here\n');
  });

  /** Of a command that lasts as long as a timeout, and is asked for after what has that timeout: a busy machine holds both up. */
  const afterSeconds = async (seconds: number): Promise<'too late'> => {
    expect((await api.execute(id, `sleep ${seconds}`, { timeout: 100 })).body.exit_code).toBe(0);
    return 'too late';
  };

  it.each([1, 2])('answers before a timeout of %i s is over, with what there was and 124', async (timeout) => {
    const asked = api.execute(id, "trap '' TERM; echo before; sleep 30", { timeout });
    const late = afterSeconds(timeout);
    expect(await Promise.race([asked, late])).toMatchObject({
      ...{ status: 200, body: { stdout: 'before\n', exit_code: 124 } },
    });
    await late;
  });

  it('of Python answers in time even when the cell will not give way', async () => {
    const code = 'import time\nwhile True:\n  try: time.sleep(9)\n  except BaseException: pass';
    const asked = api.json('POST', '/execute', { session_id: id, command: code, timeout: 1 });
    const late = afterSeconds(1);
    expect(await Promise.race([asked, late])).toMatchObject({ body: { exit_code: 124 } });
    await late;
  });

  it('does not wait for another', async () => {
    const slow = api.execute(id, 'until [ -e quick-was-here ]; do sleep 0.05; done; echo slow');
    expect((await api.execute(id, 'touch quick-was-here; echo quick')).body.stdout).toBe('quick\n');
    expect((await slow).body.stdout).toBe('slow\n');
  });

  it('is answered right fifty times at once', async () => {
    const numbers = Array.from({ length: 50 }, (_, number) => number);
    const answers = await Promise.all(numbers.map((number) => api.execute(id, `echo ${number}; exit ${number}`)));
    expect(answers.map(({ body }) => [body.stdout, body.exit_code])).toEqual(numbers.map((n) => [`${n}\n`, n]));
  });

  it('takes a script larger than any argument may be', async () => {
    const script = `: ${'x'.repeat(1_000_000)}\necho done`;
    expect((await api.execute(id, script)).body.stdout).toBe('done\n');
  });

  it('ends with the client that asked for it', async () => {
    const marker = `sleep-${process.pid}-${Date.now()}`;
    const stop = new AbortController();
    const headers = { 'x-api-key': daemon.apiKey, 'content-type': 'application/json' };
    const command = `exec -a ${marker} sleep 60`;
    const body = JSON.stringify({ session_id: id, command, language: 'bash' });
    const asked = fetch(`${daemon.baseUrl}/execute`, { method: 'POST', headers, body, signal: stop.signal });
    const lives = async () => (await api.execute(id, `pgrep -fc '^${marker}'`)).body.stdout.trim();
    await expect.poll(lives).toBe('1');
    stop.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(lives).toBe('0');
  });

  describe('in the background', () => {
    const result = async (body: object): Promise<Answer> => {
      const task = (await api.json('POST', '/execute_async', { session_id: id, language: 'bash', ...body })).body
        .task_id;
      for (;;) {
        const answer = await api.request('GET', `/v1/executions/${task}`);
        if (answer.body.is_complete) return answer;
        await sleep(50);
      }
    };

    it('is polled until it is complete', async () => {
      const { body } = await result({ command: 'sleep 0.3; echo out; echo err >&2; exit 3' });
      expect(body).toMatchObject({ serialized_stdout: 'out\n', serialized_stderr: 'err\n', exit_code: 3 });
    });

    it('tells in its stderr why it could not run', async () => {
      const ended = await api.createSession();
      await api.json('POST', '/kill', { session_id: ended });
      const { body } = await result({ command: 'true', session_id: ended });
      expect(body.serialized_stderr).toContain('ended');
    });

    it('is unknown under another id', async () => {
      expect((await api.request('GET', '/v1/executions/none')).status).toBe(404);
    });
  });
});
