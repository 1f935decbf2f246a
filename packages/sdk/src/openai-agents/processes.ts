/**
 * Commands of one session: waited for as long as asked, then left running under a number by which `write_stdin` finds them. Output is
 * returned once, decoded across chunk borders.
 */
import { randomInt } from 'node:crypto';
import type { ExecCommandArgs, SandboxExecResult, WriteStdinArgs } from '@openai/agents-core/sandbox';
import type { Exec, ExecResult } from '../exec.ts';
import type { Sandbox } from '../sandbox.ts';
import { providerError } from './errors.ts';
import { formatExecResponse, shellQuote, truncateOutput } from './internals.ts';

const MAX_PROCESSES = 64;
/** The newest are never dropped to make room. */
const PROTECTED = 8;
/** Kept of one command between two answers; what is dropped beyond is counted and said. */
const MAX_KEPT_CHARACTERS = 64 * 1024 * 1024;
const YIELD_MS = { exec: 10_000, write: 250, poll: 5_000, shortest: 250, longest: 30_000 };
const TERMINAL = { rows: 24, cols: 80, term: 'xterm-256color' };

export type ProcessContext = {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user: string | undefined;
};

class Output {
  readonly #decoder = new TextDecoder();
  #text = '';
  #dropped = 0;

  async collect(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) this.#add(this.#decoder.decode(chunk, { stream: true }));
    this.#add(this.#decoder.decode());
  }

  take(): string {
    const text = this.#dropped > 0 ? `[${this.#dropped} characters dropped]\n${this.#text}` : this.#text;
    this.#text = '';
    this.#dropped = 0;
    return text;
  }

  #add(text: string): void {
    this.#text += text;
    const excess = this.#text.length - MAX_KEPT_CHARACTERS;
    if (excess <= 0) return;
    this.#text = this.#text.slice(excess);
    this.#dropped += excess;
  }
}

type Process = {
  readonly exec: Exec;
  readonly tty: boolean;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly startedAt: number;
  /** Settles when the command has ended and all its output is collected. */
  readonly ended: Promise<void>;
  result: ExecResult | undefined;
  error: unknown;
  lastUsed: number;
};

export class Processes {
  readonly #sandbox: Sandbox;
  readonly #running = new Map<number, Process>();
  #uses = 0;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  /** Runs a command until it ends or the yield time passes, whichever is first. @throws SandboxProviderError */
  async exec(args: ExecCommandArgs, context: ProcessContext): Promise<SandboxExecResult> {
    const process = await this.#start(args, context).catch((error: unknown) => {
      throw providerError(error);
    });
    await firstOf(process.ended, clamp(args.yieldTimeMs ?? YIELD_MS.exec));
    const sessionId = process.result === undefined && process.error === undefined ? this.#keep(process) : undefined;
    return answer(process, sessionId, args.maxOutputTokens);
  }

  /** Feeds and polls a command. An unknown or ended one is answered, not thrown: the model must read it. */
  async writeStdin(args: WriteStdinArgs): Promise<string> {
    const process = this.#running.get(args.sessionId);
    if (process === undefined) return refusal(`write_stdin failed: session not found: ${args.sessionId}`);
    process.lastUsed = ++this.#uses;
    const chars = args.chars ?? '';
    if (chars !== '' && !process.tty) {
      return formatExecResponse({
        output:
          'write_stdin failed: stdin is closed for this session; run the command again with tty=true to keep it open',
        wallTimeSeconds: 0,
        sessionId: args.sessionId,
      });
    }
    if (chars !== '' && process.result === undefined) {
      // A command that ended meanwhile reports its end below.
      await process.exec.writeStdin(chars).catch(() => {});
    }
    await firstOf(process.ended, clamp(Math.max(args.yieldTimeMs ?? YIELD_MS.write, chars === '' ? YIELD_MS.poll : 0)));
    const isOver = process.result !== undefined || process.error !== undefined;
    if (isOver) this.#running.delete(args.sessionId);
    return formatResult(answer(process, isOver ? undefined : args.sessionId, args.maxOutputTokens));
  }

  /** Ends every command. */
  close(): void {
    for (const { exec } of this.#running.values()) exec.close();
    this.#running.clear();
  }

  async #start(args: ExecCommandArgs, context: ProcessContext): Promise<Process> {
    const tty = args.tty ?? false;
    const { cwd, user } = context;
    const env = tty ? { TERM: TERMINAL.term, ...context.env } : context.env;
    const exec = await this.#sandbox.exec(commandLine(args, tty), { cwd, env, user, stdin: tty });
    const [stdout, stderr] = [new Output(), new Output()];
    const collected = Promise.all([stdout.collect(exec.stdout), stderr.collect(exec.stderr), exec.wait()]);
    const process: Process = {
      exec,
      tty,
      stdout,
      stderr,
      startedAt: performance.now(),
      ended: collected.then(
        ([, , result]) => {
          process.result = result;
        },
        (error: unknown) => {
          process.error = error;
        },
      ),
      result: undefined,
      error: undefined,
      lastUsed: ++this.#uses,
    };
    return process;
  }

  #keep(process: Process): number {
    if (this.#running.size >= MAX_PROCESSES) this.#makeRoom();
    let id = randomInt(1000, 100_000);
    while (this.#running.has(id)) id = randomInt(1000, 100_000);
    this.#running.set(id, process);
    return id;
  }

  /** Drops an ended command, else the one that was not used for longest. */
  #makeRoom(): void {
    const byUse = [...this.#running].sort(([, a], [, b]) => a.lastUsed - b.lastUsed);
    const candidates = byUse.slice(0, -PROTECTED);
    const victim = candidates.find(([, { result }]) => result !== undefined) ?? candidates[0];
    if (victim === undefined) return;
    victim[1].exec.close();
    this.#running.delete(victim[0]);
  }
}

/** `cmd` stays one argument. A terminal is made by script(1) in the guest, whose exit status is the command's own (`-e`). */
function commandLine(args: ExecCommandArgs, tty: boolean): string[] {
  const shell = [args.shell ?? '/bin/bash', args.login === false ? '-c' : '-lc', args.cmd];
  if (!tty) return shell;
  const inTerminal = `stty rows ${TERMINAL.rows} cols ${TERMINAL.cols}; exec ${shell.map((word) => shellQuote(word)).join(' ')}`;
  return ['script', '--quiet', '--flush', '--return', '--command', inTerminal, '/dev/null'];
}

const clamp = (yieldTimeMs: number): number => Math.min(YIELD_MS.longest, Math.max(YIELD_MS.shortest, yieldTimeMs));

async function firstOf(ended: Promise<void>, yieldTimeMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, yieldTimeMs);
  });
  await Promise.race([ended, patience]);
  clearTimeout(timer);
}

function answer(
  process: Process,
  sessionId: number | undefined,
  maxOutputTokens: number | undefined,
): SandboxExecResult {
  if (process.error !== undefined) throw providerError(process.error);
  const [stdout, stderr] = [process.stdout.take(), process.stderr.take()];
  const separator = stdout !== '' && stderr !== '' && !stdout.endsWith('\n') ? '\n' : '';
  const { text, originalTokenCount } = truncateOutput(stdout + separator + stderr, maxOutputTokens);
  return {
    output: text,
    stdout,
    stderr,
    wallTimeSeconds: (performance.now() - process.startedAt) / 1000,
    ...(sessionId === undefined ? { exitCode: process.result?.exitCode ?? null } : { sessionId }),
    ...(originalTokenCount === undefined ? {} : { originalTokenCount }),
  };
}

/** The text that a model reads. */
export function formatResult(result: SandboxExecResult): string {
  const { output, wallTimeSeconds, exitCode, sessionId, originalTokenCount } = result;
  return formatExecResponse({
    output,
    wallTimeSeconds,
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(originalTokenCount === undefined ? {} : { originalTokenCount }),
  });
}

const refusal = (output: string): string => formatExecResponse({ output, wallTimeSeconds: 0, exitCode: 1 });
