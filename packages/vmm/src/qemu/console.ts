/**
 * The guest's console while a template is made. The agent's first line there says that it serves; only then may the control channel be
 * connected: a host that connects before the guest has its driver raises an interrupt nobody acknowledges, and the boot hangs in it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVMError } from '@instavm/wire';
import type { QmpClient } from './qmp.ts';

const POLL_MS = 20;
const KEPT_BYTES = 8 * 1024;
const READ_BYTES = 64 * 1024;
const READY = 'instavm-agent: ready';
/**
 * A busy host can make an emulated timer so late that the kernel cannot calibrate its clock against it; it then waits for ever. The
 * next attempt usually works.
 */
const NO_CLOCK = 'tsc: Unable to calibrate against PIT';
const FATAL = /instavm-agent: fatal: (.*)/;

export class GuestConsole {
  readonly #qmp: QmpClient;
  #text = '';

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /** The last lines read so far. */
  get text(): string {
    return this.#text;
  }

  /** Takes what is new. */
  async read(): Promise<string> {
    const more = await this.#qmp.run('ringbuf-read', { device: 'console', size: READ_BYTES });
    this.#text = (this.#text + String(more)).slice(-KEPT_BYTES);
    return this.#text;
  }

  /**
   * @returns false when the kernel got no clock, and booting again is the remedy
   * @throws boot_failed when the agent reports a failure, or says nothing in time
   */
  async waitForAgent(deadlineMs: number): Promise<boolean> {
    for (const until = performance.now() + deadlineMs; performance.now() < until; await sleep(POLL_MS)) {
      const text = await this.read();
      if (text.includes(READY)) return true;
      if (text.includes(NO_CLOCK)) return false;
      const failure = FATAL.exec(text)?.[1];
      if (failure !== undefined) throw new InstaVMError('boot_failed', `the guest agent gave up: ${failure.trim()}`);
    }
    throw new InstaVMError('boot_failed', `the guest did not start within ${deadlineMs} ms`);
  }
}
