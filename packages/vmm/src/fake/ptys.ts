/**
 * Terminals of the fake guest: the real agent as an ordinary process of the host, started with the first terminal. Every call is handed
 * on to it, so the daemon is tested against the real PTY service.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceImpl } from '@connectrpc/connect';
import { AgentClient, AgentError, type Pty, type PtyAttachRequest, type PtyEvent } from '@instavm/agent-client';
import { failure } from './reason.ts';

const START_DEADLINE_MS = 60_000;
const START_POLL_MS = 5;

type Options = {
  /** Of the real agent's binary; without one there are no terminals. */
  readonly agentPath: string | undefined;
  /** For the agent's socket. */
  readonly directory: string;
  /** The host directory that stands for the guest's root. */
  readonly root: string;
  readonly env: () => Record<string, string>;
};

export class FakePtys {
  readonly #options: Options;
  #process: ChildProcess | undefined;
  #agent: Promise<AgentClient> | undefined;

  constructor(options: Options) {
    this.#options = options;
  }

  readonly handlers: Partial<ServiceImpl<typeof Pty>> = {
    create: (request) => {
      const { root, env } = this.#options;
      const cwd = join(root, request.cwd === '' ? 'workspace' : request.cwd);
      // Not the host's: a login shell would run whatever the person who runs the tests has in their profile.
      const HOME = join(root, 'root');
      return this.#ask((ptys) => ptys.create({ ...request, cwd, env: { HOME, ...env(), ...request.env } }));
    },
    list: (request) => this.#ask((ptys) => ptys.list(request)),
    get: (request) => this.#ask((ptys) => ptys.get(request)),
    resize: (request) => this.#ask((ptys) => ptys.resize(request)),
    signal: (request) => this.#ask((ptys) => ptys.signal(request)),
    close: (request) => this.#ask((ptys) => ptys.close(request)),
    attach: (requests, context) => this.#attach(requests, context.signal),
  };

  async close(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    (await this.#agent?.catch(() => undefined))?.close();
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      // Its terminals hang up with it.
      child.kill('SIGKILL');
      await exited;
    }
  }

  async #ask<T>(call: (ptys: AgentClient['pty']) => Promise<T>): Promise<T> {
    try {
      return await call((await this.#client()).pty);
    } catch (error) {
      throw handedOn(error);
    }
  }

  async *#attach(requests: AsyncIterable<PtyAttachRequest>, signal: AbortSignal): AsyncGenerator<PtyEvent> {
    try {
      yield* (await this.#client()).pty.attach(requests, { signal });
    } catch (error) {
      throw handedOn(error);
    }
  }

  #client(): Promise<AgentClient> {
    this.#agent ??= this.#start();
    return this.#agent;
  }

  async #start(): Promise<AgentClient> {
    const { agentPath, directory } = this.#options;
    if (agentPath === undefined) throw failure('pty_not_found', 'this fake guest has no agent and no terminals');
    const socketPath = join(directory, 'agent.sock');
    this.#process = spawn(agentPath, ['--listen-unix', socketPath], { cwd: directory, stdio: 'ignore' });
    let error: Error | undefined;
    this.#process.once('error', (cause) => {
      error = cause;
    });
    for (const until = performance.now() + START_DEADLINE_MS; performance.now() < until && error === undefined; ) {
      const socket = connect(socketPath);
      const connected = await once(socket, 'connect').then(
        () => true,
        () => false,
      );
      if (connected) return AgentClient.open(socket, START_DEADLINE_MS);
      await sleep(START_POLL_MS);
    }
    throw failure('process_limit', `the agent of the fake guest does not start: ${error?.message ?? 'no socket'}`);
  }
}

/** The agent's refusal, in the form in which the agent itself would send it. */
const handedOn = (error: unknown): unknown =>
  error instanceof AgentError ? failure(error.reason, error.message) : error;
