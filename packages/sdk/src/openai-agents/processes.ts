/**
 * Commands of one session: waited for as long as asked, then left running under a number by which `write_stdin` finds them. Output is
 * returned once, decoded across chunk borders.
 */
import { randomInt } from 'node:crypto';
import {
  type ExecCommandArgs,
  SandboxConfigurationError,
  type SandboxExecResult,
  type WriteStdinArgs,
} from '@openai/agents-core/sandbox';
import type { Sandbox } from '../sandbox.ts';
import { providerError } from './errors.ts';
import { formatExecResponse, truncateOutput } from './internals.ts';
import { type RunningCommand, runInTerminal, runPiped } from './running-command.ts';

const MAX_PROCESSES = 64;
/** The newest are never dropped to make room. */
const PROTECTED = 8;
/** Kept of one command between two answers; what is dropped beyond is counted and said. */
const MAX_KEPT_CHARACTERS = 64 * 1024 * 1024;
const YIELD_MS = { exec: 10_000, write: 250, poll: 5_000, shortest: 250, longest: 30_000 };

export type ProcessContext = {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user: string | undefined;
};

export type ResizePtyArgs = { readonly sessionId: number; readonly cols: number; readonly rows: number };

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
  readonly command: RunningCommand;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly startedAt: number;
  /** Settles when the command has ended and all its output is collected. */
  readonly ended: Promise<void>;
  exitCode: number | undefined;
  error: unknown;
  lastUsed: number;
};

export class Processes {
  readonly #sandbox: Sandbox;
  readonly #running = new Map<number, Process>();
  /** Commands that are about to be among them. */
  #starting = 0;
  #uses = 0;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  /** Runs a command until it ends or the yield time passes, whichever is first. @throws SandboxProviderError */
  async exec(args: ExecCommandArgs, context: ProcessContext): Promise<SandboxExecResult> {
    this.#starting += 1;
    let process: Process;
    try {
      // Before the start: the sandbox has a limit of its own on terminals, and it is this one.
      if (this.#running.size + this.#starting > MAX_PROCESSES) await this.#makeRoom();
      process = await this.#start(args, context);
    } catch (error) {
      throw providerError(error);
    } finally {
      this.#starting -= 1;
    }
    // From now on, so that `close` ends it also while it is waited for.
    const id = this.#keep(process);
    await firstOf(process.ended, clamp(args.yieldTimeMs ?? YIELD_MS.exec));
    const over = isOver(process);
    if (over) this.#running.delete(id);
    return answer(process, over ? undefined : id, args.maxOutputTokens);
  }

  /** Feeds and polls a command. An unknown or ended one is answered, not thrown: the model must read it. */
  async writeStdin(args: WriteStdinArgs): Promise<string> {
    const process = this.#running.get(args.sessionId);
    if (process === undefined) return refusal(`write_stdin failed: session not found: ${args.sessionId}`);
    process.lastUsed = ++this.#uses;
    const chars = args.chars ?? '';
    if (chars !== '' && process.command.type === undefined) {
      return formatExecResponse({
        output:
          'write_stdin failed: stdin is closed for this session; run the command again with tty=true to keep it open',
        wallTimeSeconds: 0,
        sessionId: args.sessionId,
      });
    }
    // A command that ended meanwhile reports its end below.
    if (chars !== '' && !isOver(process)) await process.command.type?.(chars).catch(() => {});
    await firstOf(process.ended, clamp(Math.max(args.yieldTimeMs ?? YIELD_MS.write, chars === '' ? YIELD_MS.poll : 0)));
    const over = isOver(process);
    if (over) this.#running.delete(args.sessionId);
    return formatResult(answer(process, over ? undefined : args.sessionId, args.maxOutputTokens));
  }

  /** @throws SandboxConfigurationError for a session that is unknown, has ended, or is no terminal; SandboxProviderError */
  async resize({ sessionId, cols, rows }: ResizePtyArgs): Promise<void> {
    const resize = this.#running.get(sessionId)?.command.resize;
    if (resize === undefined) throw new SandboxConfigurationError(`there is no terminal session ${sessionId}`);
    await resize(cols, rows).catch((error: unknown) => {
      throw providerError(error);
    });
  }

  /** Ends every command; resolves when all have been told. */
  async close(): Promise<void> {
    const commands = [...this.#running.values()].map(({ command }) => command);
    this.#running.clear();
    await Promise.all(commands.map((command) => command.end()));
  }

  async #start(args: ExecCommandArgs, context: ProcessContext): Promise<Process> {
    // `cmd` stays one argument.
    const argv = [args.shell ?? '/bin/bash', args.login === false ? '-c' : '-lc', args.cmd];
    const run = args.tty === true ? runInTerminal : runPiped;
    const command = await run(this.#sandbox, argv, context);
    const [stdout, stderr] = [new Output(), new Output()];
    const collected = Promise.all([
      stdout.collect(command.stdout),
      command.stderr && stderr.collect(command.stderr),
      command.wait(),
    ]);
    const process: Process = {
      command,
      stdout,
      stderr,
      startedAt: performance.now(),
      ended: collected.then(
        ([, , exitCode]) => {
          process.exitCode = exitCode;
        },
        (error: unknown) => {
          process.error = error;
        },
      ),
      exitCode: undefined,
      error: undefined,
      lastUsed: ++this.#uses,
    };
    return process;
  }

  #keep(process: Process): number {
    let id = randomInt(1000, 100_000);
    while (this.#running.has(id)) id = randomInt(1000, 100_000);
    this.#running.set(id, process);
    return id;
  }

  /** Drops an ended command, else the one that was not used for longest. */
  async #makeRoom(): Promise<void> {
    const byUse = [...this.#running].sort(([, a], [, b]) => a.lastUsed - b.lastUsed);
    const candidates = byUse.slice(0, -PROTECTED);
    const victim = candidates.find(([, process]) => isOver(process)) ?? candidates[0];
    if (victim === undefined) return;
    this.#running.delete(victim[0]);
    await victim[1].command.end();
  }
}

const isOver = ({ exitCode, error }: Process): boolean => exitCode !== undefined || error !== undefined;

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
    ...(sessionId === undefined ? { exitCode: process.exitCode ?? null } : { sessionId }),
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
