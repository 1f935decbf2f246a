/**
 * One Firecracker in its jail. It is no child of this process, also when this process had it started: the jailer, which was, is gone. Its end is
 * seen by a connection to its API socket that is kept for nothing else.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Channel, VmmExit } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { tryConnect } from '../host/sockets.ts';
import { FirecrackerApi, FirecrackerUnreachable } from './api.ts';
import type { Jail } from './jail.ts';
import { FILES, type Limits, VSOCK_PORTS } from './machine.ts';
import { connectVsock } from './vsock.ts';

const API_DEADLINE_MS = 20_000;
const POLL_MS = 2;
/** Between the close of its sockets and its end. */
const EXIT_POLL_MS = 5;
/** Of a process that has closed its sockets. */
const EXIT_DEADLINE_MS = 10_000;

export class FirecrackerProcess {
  readonly jail: Jail;
  readonly pid: number;
  readonly api: FirecrackerApi;
  /** Settles once, when no process is left in the jail. Never rejects. */
  readonly exited: Promise<VmmExit>;
  readonly #lifeline: Socket;
  readonly #streams = new Set<Socket>();
  #requested = false;
  #gone = false;

  private constructor(jail: Jail, pid: number, lifeline: Socket) {
    this.jail = jail;
    this.pid = pid;
    this.#lifeline = lifeline;
    this.api = new FirecrackerApi(async () => {
      const socket = this.#gone ? undefined : await tryConnect(jail.root, FILES.api);
      if (socket === undefined)
        throw new FirecrackerUnreachable('Firecracker does not run any more, or its socket is gone');
      return socket;
    });
    this.exited = this.#watch();
  }

  /** @throws boot_failed */
  static async start(
    jail: Jail,
    limits: Limits,
    options: { readonly keepConsole: boolean },
  ): Promise<FirecrackerProcess> {
    return FirecrackerProcess.#of(jail, await jail.start(limits, options.keepConsole));
  }

  /** @returns undefined when nothing runs in the jail */
  static async adopt(jail: Jail): Promise<FirecrackerProcess | undefined> {
    const [pid] = await jail.cgroup.processes();
    if (pid === undefined) return undefined;
    jail.listen();
    return FirecrackerProcess.#of(jail, pid);
  }

  static async #of(jail: Jail, pid: number): Promise<FirecrackerProcess> {
    for (const until = performance.now() + API_DEADLINE_MS; performance.now() < until; await sleep(POLL_MS)) {
      const lifeline = await tryConnect(jail.root, FILES.api);
      if (lifeline !== undefined) return new FirecrackerProcess(jail, pid, lifeline);
      if (!(await jail.cgroup.isPopulated())) break;
    }
    const details = { diagnostics: await jail.diagnostics() };
    jail.stopListening();
    throw new InstaVMError('boot_failed', 'Firecracker did not open its API', { details });
  }

  async #watch(): Promise<VmmExit> {
    await new Promise((resolve) => {
      this.#lifeline
        .on('error', () => {})
        .once('close', resolve)
        // It says nothing there; one that does is none any more, and would be read for ever.
        .once('data', () => this.#lifeline.destroy());
      // A daemon that has nothing else to do may end; its microVMs go on.
      this.#lifeline.unref();
    });
    for (
      const until = performance.now() + EXIT_DEADLINE_MS;
      await this.jail.cgroup.isPopulated();
      await sleep(EXIT_POLL_MS)
    ) {
      if (performance.now() < until) continue;
      // None that is well hangs up on us and runs on. Whether this worked, `kill` tells.
      await this.jail.cgroup.end().catch(() => {});
      break;
    }
    this.#gone = true;
    const diagnostics = await this.jail.diagnostics();
    this.jail.stopListening();
    // Its parent was the jailer: nobody is told the exit status.
    return { code: null, signal: null, requested: this.#requested, diagnostics };
  }

  /** @throws boot_failed when the guest cannot be reached in time, or has ended */
  async connect(channel: Channel, deadlineMs: number): Promise<Socket> {
    const socket = await connectVsock(
      () => tryConnect(this.jail.root, FILES.vsock),
      // The guest speaks first on the other channel, and would have begun.
      { port: VSOCK_PORTS[channel], proven: channel === 'control' },
      deadlineMs,
      () => this.#gone,
    );
    if (socket !== undefined) {
      this.#streams.add(socket);
      return socket.once('close', () => this.#streams.delete(socket));
    }
    const details = { diagnostics: await this.jail.diagnostics() };
    const why = this.#gone
      ? 'Firecracker ended'
      : `the guest's ${channel} channel did not open within ${deadlineMs} ms`;
    throw new InstaVMError('boot_failed', why, { details });
  }

  /** Firecracker resets the guest's vsock for every snapshot, and tells the host's ends nothing until they write. */
  dropStreams(): void {
    for (const socket of this.#streams) socket.destroy();
  }

  /** Ends it and removes the jail. @throws teardown_incomplete */
  async kill(): Promise<void> {
    this.#requested = true;
    // A daemon that is just starting has nothing else that would keep it from ending while it waits.
    this.#lifeline.ref();
    // What it counted since its last line. One that does not answer is ended all the same.
    if (!this.#gone) await this.api.flushMetrics().catch(() => {});
    await this.jail.cgroup.end();
    await this.exited;
    await this.jail.destroy();
  }
}
