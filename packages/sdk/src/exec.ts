/** One command over one WebSocket, streamed in both directions. */
import WebSocket from 'ws';
import { ByteQueue } from './byte-queue.ts';
import { deferred } from './deferred.ts';
import { errorFromBody, InstaVMError } from './errors.ts';
import type { HttpClient } from './http.ts';
import { jsonFrame, whenRefused } from './web-socket.ts';

/** A program with its arguments, or a bash script of any length. */
export type Command = string | readonly string[];

export type ExecOptions = {
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** User name or number; root when left out. */
  readonly user?: string | undefined;
  /** Wall time after which the process group is ended; `exitCode` is then 124. */
  readonly timeoutMs?: number | undefined;
  /** Aborting kills the process group. */
  readonly signal?: AbortSignal | undefined;
};

export type ExecResult = {
  /** 128 + signal when a signal ended the command, 124 when it ran out of time. */
  readonly exitCode: number;
  readonly signal: string | null;
  readonly timedOut: boolean;
  readonly wallTimeMs: number;
  readonly cpuTimeMs: number;
};

/** Output that waits for its reader; beyond this the command waits too. */
const HIGH_WATER_BYTES = 1024 * 1024;
const STDOUT_FRAME = 1;
const TCP_KEEPALIVE_MS = 30_000;

export class Exec {
  /** Bytes as they come. An unread stream holds the command back once it has filled. */
  readonly stdout: AsyncIterable<Uint8Array>;
  readonly stderr: AsyncIterable<Uint8Array>;
  readonly #socket: WebSocket;
  readonly #result: Promise<ExecResult>;

  private constructor(socket: WebSocket, stdout: ByteQueue, stderr: ByteQueue, result: Promise<ExecResult>) {
    this.#socket = socket;
    this.stdout = stdout;
    this.stderr = stderr;
    this.#result = result;
  }

  /** Resolves when the command runs. @throws InstaVMError, also when the sandbox cannot start it */
  static async start(
    http: HttpClient,
    sandboxId: string,
    command: Command,
    options: ExecOptions & { stdin?: boolean },
  ): Promise<Exec> {
    const { url, headers } = http.webSocket(`/v2/sandboxes/${encodeURIComponent(sandboxId)}/exec`);
    const socket = new WebSocket(url, { headers, perMessageDeflate: false, maxPayload: 16 * 1024 * 1024 });
    const { cwd, env, user, timeoutMs, signal, stdin = false } = options;
    let fullQueues = 0;
    const flow = {
      full: () => {
        fullQueues += 1;
        socket.pause();
      },
      drained: () => {
        fullQueues -= 1;
        if (fullQueues === 0) socket.resume();
      },
    };
    const stdout = new ByteQueue(HIGH_WATER_BYTES, flow);
    const stderr = new ByteQueue(HIGH_WATER_BYTES, flow);
    const started = deferred<void>();
    const result = deferred<ExecResult>();
    // A caller that never waits must not end the process by an unhandled rejection.
    result.promise.catch(() => {});
    const fail = (error: Error): void => {
      stdout.fail(error);
      stderr.fail(error);
      started.reject(error);
      result.reject(error);
      socket.terminate();
    };
    const onAbort = (): void =>
      fail(signal?.reason instanceof Error ? signal.reason : new InstaVMError('aborted', 'the exec was aborted'));
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });

    // A command may say nothing for hours: without it, one whose server is gone without a word would be waited for as long.
    socket.on('upgrade', (answer) => answer.socket.setKeepAlive(true, TCP_KEEPALIVE_MS));
    socket.on('open', () => {
      const target = typeof command === 'string' ? { script: command } : { argv: command };
      socket.send(JSON.stringify({ type: 'start', ...target, cwd, env, user, stdin, timeout_ms: timeoutMs }));
    });
    whenRefused(socket, fail);
    socket.on('message', (data, isBinary) => {
      if (isBinary) {
        const bytes = data as Buffer;
        (bytes[0] === STDOUT_FRAME ? stdout : stderr).push(bytes.subarray(1));
        return;
      }
      const frame = jsonFrame(data.toString());
      if (frame?.type === 'started') started.resolve();
      else if (frame?.type === 'error') fail(errorFromBody(undefined, data.toString()));
      else if (frame?.type === 'exit') {
        stdout.end();
        stderr.end();
        result.resolve(exitOf(frame));
      }
    });
    socket.on('error', (cause) =>
      fail(
        new InstaVMError('connection_failed', `no exec connection: ${cause.message}`, { retryable: 'unknown', cause }),
      ),
    );
    socket.on('close', (code) => {
      signal?.removeEventListener('abort', onAbort);
      fail(
        new InstaVMError('connection_lost', `the exec connection closed (${code}) before the command ended`, {
          retryable: 'unknown',
        }),
      );
    });
    await started.promise;
    return new Exec(socket, stdout, stderr, result.promise);
  }

  /** Resolves when the bytes were handed to the connection. Only for a command started with `stdin: true`. */
  writeStdin(bytes: Uint8Array | string): Promise<void> {
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    return new Promise((resolve, reject) => {
      this.#socket.send(data, { binary: true }, (error) => (error ? reject(error) : resolve()));
    });
  }

  closeStdin(): void {
    this.#control({ type: 'stdin_end' });
  }

  /** Signals the process group. */
  kill(signal = 'SIGTERM'): void {
    this.#control({ type: 'signal', signal });
  }

  /** The end of the command. Its output may still wait in the streams. @throws InstaVMError when the sandbox or the connection was lost */
  wait(): Promise<ExecResult> {
    return this.#result;
  }

  /** Drops the connection; a command still running is killed. */
  close(): void {
    this.#socket.terminate();
  }

  #control(frame: object): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }
}

function exitOf(frame: Record<string, unknown>): ExecResult {
  const number = (name: string): number => (typeof frame[name] === 'number' ? (frame[name] as number) : Number.NaN);
  return {
    exitCode: number('exit_code'),
    signal: typeof frame.signal === 'string' ? frame.signal : null,
    timedOut: frame.timed_out === true,
    wallTimeMs: number('wall_time_ms'),
    cpuTimeMs: number('cpu_time_ms'),
  };
}
