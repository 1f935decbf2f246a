/** What the daemon's tests on the real Firecracker share: a daemon on it, and what there is of its microVMs. Nothing else in the machine runs any. */
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import type { Pty, Sandbox } from 'instavm';
import { expect, type TestContext } from 'vitest';

/** Two minutes with the processor to itself: the first start makes a template. */
export const START_MS = 480_000;
export const POLL = { timeout: 90_000, interval: 500 };

const { FIRECRACKER_BIN = '', JAILER_BIN = '' } = process.env;
const LOG_LINES = 40;
const CGROUPS = '/sys/fs/cgroup';
/** Of the setting's default range. */
const FIRST_UID = 1_900_000_000;
const UIDS = 10_000;

export function startNested(dataDirectory: string, env: Readonly<Record<string, string>> = {}): Promise<TestDaemon> {
  const binaries = { INSTAVM_FIRECRACKER_BIN: FIRECRACKER_BIN, INSTAVM_JAILER_BIN: JAILER_BIN };
  return startTestDaemon({
    ...{ vmm: 'firecracker', dataDirectory, startWithinMs: START_MS },
    env: { ...binaries, ...env },
  });
}

/** For `beforeEach`: what the daemon said is told when a test fails. */
export const tellOnFailure =
  (daemon: () => TestDaemon | undefined) =>
  ({ onTestFailed }: TestContext): void =>
    onTestFailed(() => console.log(daemon()?.log().split('\n').slice(-LOG_LINES).join('\n')));

/** Pids, of the jailer's too. */
export async function firecrackers(): Promise<number[]> {
  const found: number[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    const isOurs = uid >= FIRST_UID && uid < FIRST_UID + UIDS;
    if (isOurs || /^Name:\t(firecracker|jailer)/m.test(status)) found.push(Number(pid));
  }
  return found.sort((a, b) => a - b);
}

/** Cgroups of jails, and those above them. */
export async function cgroups(): Promise<string[]> {
  const found: string[] = [];
  for (const parent of (await readdir(CGROUPS)).filter((name) => /^instavm-[0-9a-f]{12}$/.test(name))) {
    const inside = await readdir(join(CGROUPS, parent), { withFileTypes: true });
    found.push(parent, ...inside.filter((entry) => entry.isDirectory()).map(({ name }) => `${parent}/${name}`));
  }
  return found;
}

/** Names of jails. */
export async function jails(dataDirectory: string): Promise<string[]> {
  const paths = await readdir(join(dataDirectory, 'jails'), { recursive: true }).catch(() => []);
  return paths.filter((path) => path.split('/').length === 2);
}

/** Everything of a microVM that is somewhere now: empty when none runs and none is suspended half-way. */
export async function traces(dataDirectory: string): Promise<string[]> {
  const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').filter((line) => line.includes(dataDirectory));
  const sockets = (await readFile('/proc/net/unix', 'utf8'))
    .split('\n')
    .filter((line) => /(api|vsock)\.sock$/.test(line));
  const partial = (await readdir(join(dataDirectory, 'snapshots')).catch(() => [])).filter((name) =>
    name.startsWith('.'),
  );
  const running = (await firecrackers()).map((pid) => `process ${pid}`);
  return [...running, ...(await cgroups()), ...(await jails(dataDirectory)), ...mounts, ...sockets, ...partial];
}

/** What the daemon's log says of an event, oldest first. */
export function logged(daemon: TestDaemon, message: string): Record<string, unknown>[] {
  const lines = daemon.log().split('\n');
  return lines.filter((line) => line.includes(`"msg":"${message}"`)).map((line) => JSON.parse(line));
}

/** @returns what a command that succeeds in silence writes */
export async function say(of: Sandbox, command: string): Promise<string> {
  const { exitCode, stdoutText, stderrText } = await of.run(command, { timeoutMs: 60_000 });
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
