/** The log of a daemon: what ties it to requests, and what is never in it. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type Readable, Writable } from 'node:stream';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLogger } from '../src/log.ts';
import { type Api, apiOf, stream } from './api.ts';
import { Browser, linkToken } from './browser.ts';

describe('the log', () => {
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_SIGN_UP: 'open', INSTAVM_LOG_LEVEL: 'debug' } });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());

  const lines = () =>
    daemon
      .log()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);

  it("has the caller's request id, which the answer has too", async () => {
    const { headers } = await api.request('GET', '/v1/users/me', { headers: { 'x-request-id': 'caller-7.of:mine' } });
    expect(headers.get('x-request-id')).toBe('caller-7.of:mine');
    await expect.poll(() => lines().filter(({ reqId }) => reqId === 'caller-7.of:mine').length).toBeGreaterThan(0);
  });

  it('takes no id that could be read as something else, and gives errors the id of their answer', async () => {
    for (const given of ['a b', '"},{"level":60', 'x'.repeat(129)]) {
      const { headers, body } = await api.request('GET', '/nowhere', { headers: { 'x-request-id': given } });
      expect(headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/);
      expect(body.request_id).toBe(headers.get('x-request-id'));
    }
  });

  it('holds no key, password, cookie, token, command, environment or content, whatever people do', async () => {
    const secrets: Record<string, string> = {
      administrator: daemon.apiKey,
      password: 'pass phrase of nobody',
      command: 'marker-of-a-command',
      env: 'marker-of-the-environment',
      content: 'marker-of-a-content',
      query: 'instavm_sk_in_a_query',
    };
    const browser = new Browser(daemon);
    const person = { email: 'eve@example.com', password: secrets.password, name: 'Eve' };
    await browser.ask('POST', '/api/auth/sign-up', person);
    await browser.ask('POST', '/api/auth/sign-in', { ...person, password: `${secrets.password}, wrongly` });
    secrets.link = await linkToken(daemon);
    await browser.ask('POST', '/api/auth/link', { token: secrets.link });
    secrets.cookie = browser.cookie.split('=')[1] ?? '';
    secrets.key = (await api.json('POST', '/v1/api-keys/', { name: 'k' })).body.api_key;
    const created = await api.json('POST', '/v2/sandboxes', { env: { MARKER: secrets.env } });
    const { id } = created.body;
    expect(created.status).toBe(201);
    await api.execute(id, `echo ${secrets.command}`);
    await stream(api, id, { type: 'start', script: `echo ${secrets.command}; false` });
    await api.request('PUT', `/v2/sandboxes/${id}/files?path=/tmp/f`, { body: secrets.content ?? '' });
    const ptys = `/v1/sessions/${id}/pty/sessions`;
    const pty = (await api.json('POST', ptys, {})).body.session_id;
    secrets.pty = (await api.json('POST', `${ptys}/${pty}/token`, {})).body.token;
    const share = (await api.json('POST', '/v1/shares', { session_id: id, port: 8080 })).body.share_id;
    const link = (await api.json('POST', `/v1/shares/${share}/token`, {})).body.url;
    secrets.share = link.split('=').at(-1);
    await fetch(`${daemon.baseUrl}/v1/users/me?api_key=${secrets.query}`);
    await fetch(`${daemon.baseUrl}/v1/users/me`, { headers: { 'x-api-key': `${secrets.query}2` } });
    await api.request('DELETE', `/v2/sandboxes/${id}`);
    await expect.poll(() => daemon.log()).toContain(`/v2/sandboxes/${id}`);
    for (const [what, secret] of Object.entries(secrets)) {
      expect(secret, what).toMatch(/.{10}/);
      expect(daemon.log().includes(secret), `${what} is in the log`).toBe(false);
    }
  });
});

it('is text for people when that is wanted', async () => {
  let text = '';
  const destination = new Writable({
    write: (piece, _encoding, done) => {
      text += piece;
      done();
    },
  });
  const log = await createLogger({ INSTAVM_LOG_LEVEL: 'info', INSTAVM_LOG_FORMAT: 'text' }, destination);
  log.info({ sandboxId: 's', token: 'hidden' }, 'sandbox running');
  await expect.poll(() => text).toMatch(/INFO.*sandbox running\n\s+sandboxId: "s"/);
  expect(text).not.toContain('hidden');
});

const LINES = 30;
/** Together more than any pipe takes. */
const LINE = 100_000;

/** A program that logs as soon as it is told to, and then does what `then` says. */
async function loggingProgram(format: string, then: string) {
  const program = `
    const { createLogger } = await import(${JSON.stringify(import.meta.resolve('../src/log.ts'))});
    const log = await createLogger({ INSTAVM_LOG_LEVEL: 'info', INSTAVM_LOG_FORMAT: '${format}' });
    process.stdin.once('data', () => {
      for (let line = 1; line <= ${LINES}; line++) log.info('x'.repeat(${LINE}) + ' line ' + line);
      ${then};
    });
    process.stderr.write('ready');`;
  const args = ['--conditions=instavm-source', '--input-type=module', '-e', program];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'], timeout: 60_000 });
  await once(child.stderr, 'data');
  return child;
}

/** How one ends that has logged, and what was read of it. */
async function endingProgram(format: string, read: (output: Readable) => void) {
  const child = await loggingProgram(format, 'process.exit(0)');
  read(child.stdout);
  child.stdin.end('now');
  const [code, signal] = await once(child, 'close');
  return { code, signal };
}

const EVERY_LINE = Array.from({ length: LINES }, (_, index) => `line ${index + 1}`);

it('has every line in order, also for a reader that was slow to begin and gets no further line', async () => {
  const child = await loggingProgram('json', "process.stderr.write('logged'); setInterval(() => {}, 1_000)");
  try {
    child.stdin.write('now');
    await once(child.stderr, 'data');
    let text = '';
    child.stdout.on('data', (piece) => (text += piece));
    await expect.poll(() => text.match(/line \d+/g)).toEqual(EVERY_LINE);
  } finally {
    child.kill('SIGKILL');
  }
});

describe('a daemon that ends', () => {
  it.each(['json', 'text'])('has said everything before (%s)', async (format) => {
    let text = '';
    const ended = await endingProgram(format, (output) => output.on('data', (piece) => (text += piece)));
    expect(ended).toEqual({ code: 0, signal: null });
    expect(text.match(/line \d+/g)).toEqual(EVERY_LINE);
  });

  it.each(['json', 'text'])('ends though nobody reads its log any more (%s)', async (format) => {
    expect(await endingProgram(format, (output) => output.destroy())).toEqual({ code: 0, signal: null });
  });

  it('ends though whoever reads its log takes nothing', async () => {
    expect(await endingProgram('json', (output) => output.pause())).toEqual({ code: 0, signal: null });
  });
});
