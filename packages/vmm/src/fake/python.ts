/** The fake guest's Python: the host's interpreter, one per guest, whose variables persist over cells. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { PythonRequest } from '@instavm/agent-client';
import type { FakeEvent } from './exec.ts';
import { failure } from './reason.ts';

/** Reads cells as JSON lines, answers each with one JSON line; `!command` runs in a shell, as IPython has it. */
const DRIVER = `
import contextlib, io, json, re, subprocess, sys, traceback
answers, scope = sys.stdout, {"__name__": "__main__"}
def shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    sys.stdout.write(done.stdout); sys.stderr.write(done.stderr)
scope["_shell"] = shell
for line in sys.stdin:
    code = re.sub(r"^(\\s*)!(.*)$", lambda m: f"{m[1]}_shell({m[2]!r})", json.loads(line), flags=re.M)
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(compile(code, "<cell>", "exec"), scope)
        except BaseException:
            status = 1
            traceback.print_exc()
    answers.write(json.dumps([out.getvalue(), err.getvalue(), status]) + "\\n")
    answers.flush()
`;
const STUBBORN_MS = 3_000;
const TIMED_OUT = 124;

export class PythonKernel {
  readonly #root: string;
  readonly #env: () => Record<string, string>;
  #child: ChildProcess | undefined;
  #lines: AsyncIterator<string> | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(root: string, env: () => Record<string, string>) {
    this.#root = root;
    this.#env = env;
  }

  async *run(request: PythonRequest, signal: AbortSignal): AsyncGenerator<FakeEvent> {
    const mine = this.#turn.then(() => this.#cell(request, signal));
    this.#turn = mine.catch(() => {});
    yield { event: { case: 'started', value: { pid: this.#started().child.pid ?? 0 } } };
    yield* await mine;
  }

  async close(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }

  async #cell({ code, timeoutMs }: PythonRequest, signal: AbortSignal): Promise<FakeEvent[]> {
    // Given up while it waited for its turn.
    if (signal.aborted) return [];
    const { child, lines } = this.#started();
    const startedAt = performance.now();
    let timedOut = false;
    const timers: NodeJS.Timeout[] = [];
    const interrupt = (): void => {
      child.kill('SIGINT');
      timers.push(setTimeout(() => child.kill('SIGKILL'), STUBBORN_MS));
    };
    if (timeoutMs > 0) {
      timers.push(
        setTimeout(() => {
          timedOut = true;
          interrupt();
        }, timeoutMs),
      );
    }
    signal.addEventListener('abort', interrupt);
    try {
      child.stdin?.write(`${JSON.stringify(code)}\n`);
      const line = await lines.next();
      if (line.done) this.#child = undefined;
      const [stdout, stderr, status]: [string, string, number] = line.done
        ? ['', 'the Python kernel ended\n', 1]
        : JSON.parse(line.value);
      const wallTimeUs = BigInt(Math.round((performance.now() - startedAt) * 1000));
      const exit = { code: timedOut ? TIMED_OUT : status, signal: 0, timedOut, wallTimeUs, cpuTimeUs: 0n };
      return [
        { event: { case: 'stdout', value: new TextEncoder().encode(stdout) } },
        { event: { case: 'stderr', value: new TextEncoder().encode(stderr) } },
        { event: { case: 'exit', value: exit } },
      ];
    } finally {
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener('abort', interrupt);
    }
  }

  #started(): { child: ChildProcess; lines: AsyncIterator<string> } {
    if (
      this.#child !== undefined &&
      this.#lines !== undefined &&
      this.#child.exitCode === null &&
      this.#child.signalCode === null
    )
      return { child: this.#child, lines: this.#lines };
    const child = spawn('python3', ['-u', '-c', DRIVER], {
      cwd: `${this.#root}/workspace`,
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: `${this.#root}/root`, ...this.#env() },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    child.stdin?.on('error', () => {});
    child.on('error', () => {});
    if (child.stdout === null) throw failure('python_unavailable', 'python3 has no output');
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return { child, lines: this.#lines };
  }
}
