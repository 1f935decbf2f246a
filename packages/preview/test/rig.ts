/** A proxy whose shares are real servers on loopback, and visitors that trust its certificate authority. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request as httpsRequest } from 'node:https';
import { type AddressInfo, connect, type createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { InstaVMError } from '@instavm/wire';
import { type PreviewLimits, PreviewProxy } from '../src/index.ts';

export const shareId = (letter: string): string => `shr${letter.repeat(20)}`;
export const PUBLIC = shareId('a');
export const PRIVATE = shareId('b');
export const OTHER_PRIVATE = shareId('c');
export const EMPTY = shareId('d');
/** What may open private shares. */
export const OWNERS_KEY = 'instavm_sk_owner';

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
};

export class Rig {
  readonly proxy: PreviewProxy;
  readonly ca: Buffer;
  readonly #directory: string;
  readonly #agent: Agent;

  private constructor(proxy: PreviewProxy, ca: Buffer, directory: string) {
    this.proxy = proxy;
    this.ca = ca;
    this.#directory = directory;
    this.#agent = new Agent({ ca, lookup: toLoopback as never });
  }

  /** @param service every share leads to it, except {@link EMPTY}, where nobody listens */
  static async open(service: Server, limits: Partial<PreviewLimits> = {}): Promise<Rig> {
    const port = await listening(service);
    const directory = await mkdtemp(join(tmpdir(), 'instavm-preview-'));
    const proxy = await PreviewProxy.listen({
      host: '127.0.0.1',
      port: 0,
      domain: 'preview.localhost',
      directory,
      limits,
      log: { info: () => {}, warn: () => {} },
      targets: {
        find: async (id) =>
          [PUBLIC, PRIVATE, OTHER_PRIVATE, EMPTY].includes(id)
            ? {
                shareId: id,
                sandboxId: 'sandbox',
                port: 3000,
                isPublic: id === PUBLIC || id === EMPTY,
                connect: async () => {
                  if (id === EMPTY) throw new InstaVMError('port_not_listening', 'nothing listens on port 3000');
                  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
                  await once(socket, 'connect');
                  return socket;
                },
              }
            : undefined,
        mayOpen: async (key) => key === OWNERS_KEY,
      },
    });
    return new Rig(proxy, await readFile(proxy.caPath ?? ''), directory);
  }

  get port(): number {
    return Number(new URL(this.proxy.urlOf(PUBLIC)).port || 443);
  }

  get agent(): Agent {
    return this.#agent;
  }

  /** Over HTTP/1.1. */
  async ask(
    id: string,
    path = '/',
    options: { method?: string; headers?: Record<string, string>; body?: string } = {},
  ): Promise<Answer> {
    const { method = 'GET', headers = {}, body } = options;
    const asked = httpsRequest(new URL(path, this.proxy.urlOf(id)), { agent: this.#agent, method, headers });
    asked.end(body);
    const [answer] = (await once(asked, 'response')) as [import('node:http').IncomingMessage];
    let text = '';
    for await (const chunk of answer) text += chunk;
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: text };
  }

  /** A connection for raw bytes. @param serverName of TLS */
  async raw(serverName = `${PUBLIC}.preview.localhost`): Promise<TLSSocket> {
    const socket = connectTls({ port: this.port, host: '127.0.0.1', servername: serverName, ca: this.ca });
    await once(socket, 'secureConnect');
    return socket;
  }

  /** @returns all that the proxy answers to these bytes until it closes, or for half a second */
  async say(bytes: string, serverName?: string): Promise<string> {
    const socket = await this.raw(serverName);
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.write(bytes);
    await Promise.race([once(socket, 'close'), new Promise((resolve) => setTimeout(resolve, 500))]);
    socket.destroy();
    return text;
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    await this.proxy.close();
    await rm(this.#directory, { recursive: true });
  }
}

export async function listening(server: Server | ReturnType<typeof createServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function toLoopback(
  _name: string,
  { all }: { all?: boolean },
  answer: (error: null, ...rest: unknown[]) => void,
): void {
  if (all) answer(null, [{ address: '127.0.0.1', family: 4 }]);
  else answer(null, '127.0.0.1', 4);
}
