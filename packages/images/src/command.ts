/**
 * Runs one host program to its end: own process group (so that an abort reaches a whole pipeline), a clean environment,
 * and on failure an error that shows the command and the last lines it wrote.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Enough to show apt's or cargo's reason, little enough for a terminal. */
const TAIL_LINES = 15;
const STDOUT_LIMIT_BYTES = 16 * 1024 * 1024;
const GRACE_BEFORE_KILL_MS = 5_000;

export type CommandOptions = {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Called for each line of standard error. */
  readonly onLine?: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
};

/** What host programs get: the tools' directories, and only those variables of ours that change how they reach a network. */
export function commandEnvironment(): Record<string, string> {
  const path = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`;
  const kept = ['HOME', 'TMPDIR', 'http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'];
  const env: Record<string, string> = {
    PATH: path,
    LANG: 'C.UTF-8',
    LC_ALL: 'C.UTF-8',
    DEBIAN_FRONTEND: 'noninteractive',
  };
  for (const name of kept) {
    const value = process.env[name];
    if (value !== undefined) env[name] = value;
  }
  return env;
}

/**
 * @returns standard output
 * @throws Error when the program is missing, ends with another status than 0, or the signal aborts it
 */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  options.signal?.throwIfAborted();
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...commandEnvironment(), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });

  let killTimer: NodeJS.Timeout | undefined;
  const abort = (): void => {
    signalGroup(child.pid, 'SIGTERM');
    killTimer = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), GRACE_BEFORE_KILL_MS);
  };
  options.signal?.addEventListener('abort', abort, { once: true });

  const tail: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => {
    tail.push(line);
    if (tail.length > TAIL_LINES) tail.shift();
    options.onLine?.(line);
  });
  const output: Buffer[] = [];
  let outputBytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    outputBytes += chunk.length;
    if (outputBytes <= STDOUT_LIMIT_BYTES) output.push(chunk);
  });

  try {
    const ended = await new Promise<string>((resolve, reject) => {
      child.once('error', (cause) => reject(new Error(`${command} could not be started: ${cause.message}`, { cause })));
      child.once('close', (code, signal) =>
        resolve(code === 0 ? '' : signal ? `ended by ${signal}` : `exit status ${code}`),
      );
    });
    options.signal?.throwIfAborted();
    if (ended) throw new Error([`${command} ${args.join(' ')}: ${ended}`, ...tail].join('\n  '));
    if (outputBytes > STDOUT_LIMIT_BYTES)
      throw new Error(`${command}: more than ${STDOUT_LIMIT_BYTES} bytes of output`);
    return Buffer.concat(output).toString();
  } finally {
    clearTimeout(killTimer);
    options.signal?.removeEventListener('abort', abort);
  }
}

function signalGroup(pid: number | undefined, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
