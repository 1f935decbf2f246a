/** Runs a program of the host with this process's environment, for the commands of package.json. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** How much of a failed program's output its error shows. */
const TAIL_LINES = 200;

export type RunOptions = {
  readonly cwd?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Called for each line of either output. */
  readonly onLine?: (line: string) => void;
};

/**
 * Runs quietly; the output is shown only when the program fails.
 * @returns standard output
 * @throws Error with the last lines of output
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    signal: options.signal,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const tail: string[] = [];
  const note = (line: string): void => {
    tail.push(line);
    if (tail.length > TAIL_LINES) tail.shift();
    options.onLine?.(line);
  };
  const output: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    output.push(line);
    note(line);
  });
  createInterface({ input: child.stderr }).on('line', note);
  const ended = await outcome(child, command);
  if (ended !== 0) throw new Error([`${command} ${args.join(' ')}: ${describe(ended)}`, ...tail].join('\n  '));
  return output.join('\n');
}

/** Runs with the terminal as its own standard streams. @returns the exit status, or the name of the signal that ended it */
export function runVisibly(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<number | string> {
  const env = { ...process.env, ...options.env };
  return outcome(spawn(command, args, { cwd: options.cwd, env, signal: options.signal, stdio: 'inherit' }), command);
}

/** Runs with the output both on the terminal and in the answer. */
export async function runAndCapture(
  command: string,
  args: readonly string[],
  options: Omit<RunOptions, 'onLine'> = {},
): Promise<{ readonly ended: number | string; readonly output: string }> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    signal: options.signal,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => {
    output.push(chunk);
    process.stdout.write(chunk);
  });
  child.stderr.pipe(process.stderr, { end: false });
  const ended = await outcome(child, command);
  return { ended, output: Buffer.concat(output).toString() };
}

function outcome(child: ReturnType<typeof spawn>, command: string): Promise<number | string> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        cause.name === 'AbortError' ? cause : new Error(`${command} could not be started: ${cause.message}`, { cause }),
      ),
    );
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
}

function describe(ended: number | string): string {
  return typeof ended === 'number' ? `exit status ${ended}` : `ended by ${ended}`;
}
