/** A client of the QEMU Machine Protocol: one command at a time over a Unix socket (QEMU: docs/interop/qmp-spec). */
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';

const Message = z.object({
  return: z.unknown().optional(),
  error: z.object({ class: z.string(), desc: z.string() }).optional(),
  event: z.string().optional(),
  QMP: z.unknown().optional(),
});

export class QmpClient {
  readonly #socket: Socket;
  readonly #waiting: ((message: z.infer<typeof Message> | undefined) => void)[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => socket.destroy());
    const lines = createInterface({ input: socket });
    // The interface repeats the socket's errors; unheard, they would end the process.
    lines.on('error', () => socket.destroy());
    lines.on('line', (line) => {
      const message = Message.safeParse(JSON.parse(line));
      // Events and the greeting answer nobody.
      if (!message.success || message.data.event !== undefined || message.data.QMP !== undefined) return;
      this.#waiting.shift()?.(message.data);
    });
    socket.once('close', () => {
      for (const settle of this.#waiting.splice(0)) settle(undefined);
    });
  }

  /** @throws internal when QEMU refuses the capabilities exchange */
  static async open(socket: Socket): Promise<QmpClient> {
    const client = new QmpClient(socket);
    await client.run('qmp_capabilities');
    return client;
  }

  /** @throws internal with QEMU's own words, or when QEMU ends before it answers */
  run(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(lost(command));
      this.#waiting.push((message) => {
        if (message === undefined) reject(lost(command));
        else if (message.error) reject(new InstaVMError('internal', `QEMU refuses ${command}: ${message.error.desc}`));
        else resolve(message.return);
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

const lost = (command: string): InstaVMError =>
  new InstaVMError('internal', `QEMU ended before it answered ${command}`);
