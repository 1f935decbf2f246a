/**
 * A client of the QEMU Machine Protocol: one command at a time over a Unix socket (QEMU: docs/interop/qmp-spec). A guest may have broken into who
 * answers: what is no answer of the protocol, or none in time, ends the connection.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { parseJson } from '../host/parse-json.ts';

const Message = z.object({
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
  QMP: z.unknown().optional(),
});

const Migration = z.object({ status: z.string().optional() });

/** Stopping the vCPUs also flushes the disks. */
const ANSWER_DEADLINE_MS = 30_000;
const RETRY_MS = 5;
/** Far beyond what any command of ours is answered with. */
const MAX_LINE_CHARS = 1024 * 1024;

export class QmpClient {
  readonly #socket: Socket;
  readonly #answerDeadlineMs: number;
  #unread = '';
  readonly #waiting: ((message: z.infer<typeof Message> | undefined) => void)[] = [];

  private constructor(socket: Socket, answerDeadlineMs: number) {
    this.#socket = socket;
    this.#answerDeadlineMs = answerDeadlineMs;
    socket.on('error', () => socket.destroy());
    socket.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    socket.once('close', () => {
      for (const settle of this.#waiting.splice(0)) settle(undefined);
    });
  }

  #read(text: string): void {
    const lines = (this.#unread + text).split('\n');
    this.#unread = lines.pop() ?? '';
    if (this.#unread.length > MAX_LINE_CHARS) return void this.#socket.destroy();
    for (const line of lines) {
      const message = parseJson(Message, line);
      if (message === undefined) return void this.#socket.destroy();
      // Events and the greeting answer nobody.
      if (message.event === undefined && message.QMP === undefined) this.#waiting.shift()?.(message);
    }
  }

  /** @throws internal when QEMU refuses the capabilities exchange */
  static async open(socket: Socket, answerDeadlineMs = ANSWER_DEADLINE_MS): Promise<QmpClient> {
    const client = new QmpClient(socket, answerDeadlineMs);
    await client.run('qmp_capabilities');
    return client;
  }

  /** @throws internal with QEMU's own words, or when QEMU ends before it answers, or does not answer in time */
  run(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(lost(command));
      const late = setTimeout(() => this.#socket.destroy(), this.#answerDeadlineMs);
      this.#waiting.push((message) => {
        clearTimeout(late);
        if (message === undefined) reject(lost(command));
        else if (message.error) reject(new InstaVMError('internal', `QEMU refuses ${command}: ${message.error.desc}`));
        else resolve(message.return);
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  /** Waits for the migration under way. @returns how it ended; undefined: not in time. @throws internal */
  async migrationEnd(deadlineMs: number): Promise<'completed' | 'failed' | 'cancelled' | undefined> {
    for (const until = performance.now() + deadlineMs; performance.now() < until; await sleep(RETRY_MS)) {
      const { status } = Migration.parse(await this.run('query-migrate'));
      if (status === 'completed' || status === 'failed' || status === 'cancelled') return status;
    }
    return undefined;
  }

  /**
   * Lets the vCPUs go on. A migration that failed is not over at once, and until it is QEMU refuses ("not finalized yet"), so it is asked again.
   * @returns whether they do
   */
  async goOn(deadlineMs: number): Promise<boolean> {
    for (const until = performance.now() + deadlineMs; performance.now() < until; await sleep(RETRY_MS)) {
      const goes = await this.run('cont').then(
        () => true,
        () => false,
      );
      if (goes || this.#socket.destroyed) return goes;
    }
    return false;
  }

  close(): void {
    this.#socket.destroy();
  }
}

const lost = (command: string): InstaVMError =>
  new InstaVMError('internal', `QEMU ended before it answered ${command}, or did not answer`);
