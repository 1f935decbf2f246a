/** What is done with sandboxes and previews, in words of one syllable. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import type { TestDaemon } from '@instavm/testing';
import type { Pty, Sandbox } from 'instavm';
import { expect } from 'vitest';

/** What the daemon's log says of an event, oldest first. */
export function logged(daemon: TestDaemon, message: string): Record<string, unknown>[] {
  const lines = daemon.log().split('\n');
  return lines.filter((line) => line.includes(`"msg":"${message}"`)).map((line) => JSON.parse(line));
}

/** @returns what a command that succeeds in silence writes */
export async function say(of: Sandbox, command: string): Promise<string> {
  const { exitCode, stdoutText, stderrText } = await of.run(command, { timeoutMs: 200_000 });
  expect([exitCode, stderrText]).toEqual([0, '']);
  return stdoutText.trim();
}

/** @returns what was shown so far, whenever it is called */
export function follow(pty: Pty): () => string {
  let all = '';
  const ended = (async () => {
    for await (const chunk of pty.output) all += Buffer.from(chunk).toString();
  })();
  ended.catch(() => {});
  return () => all;
}

/** A visit of a preview, at the address that its name would have in public. */
export async function visit(url: string, dataDirectory: string): Promise<[status: number | undefined, text: string]> {
  const ca = await readFile(join(dataDirectory, 'preview', 'preview.localhost.ca.pem'));
  const lookup = (_: string, options: { all?: boolean }, answer: (...args: unknown[]) => void): void =>
    options.all ? answer(null, [{ address: '127.0.0.1', family: 4 }]) : answer(null, '127.0.0.1', 4);
  const agent = new Agent({ ca, lookup: lookup as never });
  try {
    const asked = request(url, { agent });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    let text = '';
    for await (const part of answer) text += part;
    return [answer.statusCode, text];
  } finally {
    agent.destroy();
  }
}

/** Written over in place, so that a reader never finds it empty; seldom, for guests may share one emulated processor. */
export const COUNTER = 'i=0; while :; do printf "%08d\\n" $((i+=1)) 1<> /dev/shm/count; sleep 0.5; done';
export const count = async (of: Sandbox): Promise<number> => Number(await say(of, 'cat /dev/shm/count'));
export const stateOf = async (of: Sandbox): Promise<string> => (await of.info()).state;

export const healthOf = async (daemon: TestDaemon): Promise<Record<string, unknown>> =>
  (await (await fetch(`${daemon.baseUrl}/healthz`)).json()) as Record<string, unknown>;
