/** Commands of the fake guest: host processes, each in a group of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { HandlerContext } from '@connectrpc/connect';
import type { ExecRequest, ExecStart, PythonRequest } from '@instavm/agent-client';
import { PythonKernel } from './python.ts';
import { failure } from './reason.ts';

const KILL_GRACE_MS = 200;
/** The command by which tests let the guest die under them. */
const POWER_OFF = 'poweroff';
const TIMED_OUT = 124;

type Options = { root: string; scripts: string; env: () => Record<string, string>; powerOff: () => void };
export type FakeEvent = {
  event:
    | { case: 'started'; value: { pid: number } }
    | { case: 'stdout' | 'stderr'; value: Uint8Array<ArrayBuffer> }
    | { case: 'exit'; value: FakeExit };
};
export type FakeExit = { code: number; signal: number; timedOut: boolean; wallTimeUs: bigint; cpuTimeUs: bigint };

export function execService({ root, scripts, env, powerOff }: Options) {
  const groups = new Set<ChildProcess>();
  const kernel = new PythonKernel(root, env);

  async function* run(requests: AsyncIterable<ExecRequest>, context: HandlerContext): AsyncGenerator<FakeEvent> {
    const incoming = requests[Symbol.asyncIterator]();
    const first = await incoming.next();
    if (first.done || first.value.message.case !== 'start')
      throw failure('invalid_request', 'the first message must be start');
    const start = first.value.message.value;
    const argv = start.command.case === 'argv' ? start.command.value.args : [];
    if (argv[0] === POWER_OFF || start.command.value === POWER_OFF) {
      powerOff();
      await once(context.signal, 'abort');
      return;
    }
    const scratch = await mkdtemp(join(scripts, 'script-'));
    try {
      const child = await spawned(await commandOf(start, scratch), start, { ...env(), ...start.env }, root);
      groups.add(child);
      try {
        yield* relay(child, start, incoming, context.signal);
      } finally {
        groups.delete(child);
      }
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  return {
    handlers: {
      run,
      runPython: (request: PythonRequest, context: HandlerContext) => kernel.run(request, context.signal),
    },
    running: () => groups.size,
    close: async (): Promise<void> => {
      for (const child of groups) killGroup(child, 'SIGKILL');
      await kernel.close();
    },
  };
}

async function commandOf(start: ExecStart, scratch: string): Promise<string[]> {
  if (start.command.case === 'argv') return start.command.value.args;
  const path = join(scratch, 'script');
  await writeFile(path, start.command.case === 'script' ? start.command.value : '');
  return ['/bin/bash', path];
}

async function spawned(
  [program = '', ...args]: string[],
  start: ExecStart,
  env: Record<string, string>,
  root: string,
): Promise<ChildProcess> {
  const cwd = join(root, start.cwd === '' ? 'workspace' : start.cwd);
  if (!existsSync(cwd)) throw failure('cwd_not_found', `there is no directory ${start.cwd}`);
  checkUser(start.user);
  const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  const child = spawn(program, args, {
    cwd,
    detached: true,
    env: { PATH: path, HOME: join(root, 'root'), LANG: 'C.UTF-8', ...env },
    stdio: [start.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
  });
  const error = await new Promise<Error | undefined>((resolve) => {
    child.once('spawn', () => resolve(undefined));
    child.on('error', resolve);
  });
  if (error !== undefined) throw failure('command_not_found', error.message);
  return child;
}

function checkUser(user: string): void {
  if (user === '' || user === 'root' || /^\d+$/.test(user)) return;
  const known = readFileSync('/etc/passwd', 'utf8').split('\n');
  if (!known.some((line) => line.startsWith(`${user}:`))) throw failure('user_unknown', `there is no user ${user}`);
}

async function* relay(
  child: ChildProcess,
  start: ExecStart,
  incoming: AsyncIterator<ExecRequest>,
  signal: AbortSignal,
): AsyncGenerator<FakeEvent> {
  const startedAt = performance.now();
  let timedOut = false;
  let killTimer: NodeJS.Timeout | undefined;
  const timer =
    start.timeoutMs === 0
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          killGroup(child, 'SIGTERM');
          killTimer = setTimeout(() => killGroup(child, 'SIGKILL'), KILL_GRACE_MS);
        }, start.timeoutMs);
  const abandon = (): void => killGroup(child, 'SIGKILL');
  signal.addEventListener('abort', abandon);
  // While it was started.
  if (signal.aborted) abandon();
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  feed(child, incoming).catch(() => {});
  try {
    yield { event: { case: 'started', value: { pid: child.pid ?? 0 } } };
    yield* merged({ stdout: child.stdout as Readable, stderr: child.stderr as Readable });
    const [status, signalName] = await exited;
    const number = signalName === null ? 0 : constants.signals[signalName];
    const code = timedOut ? TIMED_OUT : (status ?? 128 + number);
    const wallTimeUs = BigInt(Math.round((performance.now() - startedAt) * 1000));
    yield { event: { case: 'exit', value: { code, signal: number, timedOut, wallTimeUs, cpuTimeUs: 0n } } };
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    signal.removeEventListener('abort', abandon);
    killGroup(child, 'SIGKILL');
  }
}

async function feed(child: ChildProcess, incoming: AsyncIterator<ExecRequest>): Promise<void> {
  // A command need not read its input.
  child.stdin?.on('error', () => {});
  for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
    const { message } = next.value;
    if (message.case === 'stdin' && child.stdin?.write(message.value) === false) {
      await Promise.race([once(child.stdin, 'drain'), once(child.stdin, 'close')]);
    } else if (message.case === 'stdinEnd') child.stdin?.end();
    else if (message.case === 'signal') process.kill(-(child.pid ?? 0), message.value);
  }
}

/** What both streams give, as it comes; a stream is read on only when its last piece was taken. */
async function* merged(streams: Record<'stdout' | 'stderr', Readable>): AsyncGenerator<FakeEvent> {
  const pending = new Map<'stdout' | 'stderr', Promise<['stdout' | 'stderr', IteratorResult<Buffer>]>>();
  const iterators = { stdout: streams.stdout.iterator(), stderr: streams.stderr.iterator() };
  const ask = (name: 'stdout' | 'stderr'): void => {
    pending.set(
      name,
      iterators[name].next().then((result) => [name, result as IteratorResult<Buffer>]),
    );
  };
  ask('stdout');
  ask('stderr');
  while (pending.size > 0) {
    const [name, result] = await Promise.race(pending.values());
    pending.delete(name);
    if (result.done) continue;
    yield { event: { case: name, value: new Uint8Array(result.value) } };
    ask(name);
  }
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group has ended.
  }
}
