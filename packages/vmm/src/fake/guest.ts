/** The fake's guest agent: the handshake of spec/agent.proto, then the real services' contract over HTTP/2. */
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2';
import { freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { ACKN, Exec, Files, Lifecycle, NONCE_BYTES, Pty, SYNC } from '@instavm/agent-client';
import type { MachineSize } from '@instavm/core';
import { execService } from './exec.ts';
import { filesService } from './files.ts';
import { FakePtys } from './ptys.ts';
import { FakeTunnels } from './tunnel.ts';

export class FakeGuest {
  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #exec: ReturnType<typeof execService>;
  readonly #ptys: FakePtys;
  readonly #startedAt = Date.now();
  #env: Record<string, string> = {};

  /**
   * @param directory holds `disk`, the guest's root, and `scripts`, which the guest does not see
   * @param powerOff called when the guest ends by itself
   * @param agentPath the real agent's binary, which runs the terminals
   */
  constructor(directory: string, size: MachineSize, powerOff: () => void, agentPath?: string) {
    const root = join(directory, 'disk');
    this.#exec = execService({ root, scripts: join(directory, 'scripts'), env: () => this.#env, powerOff });
    this.#ptys = new FakePtys({ agentPath, directory, root, env: () => this.#env });
    const handler = connectNodeAdapter({
      routes: (router) => {
        router.service(Lifecycle, {
          ping: () => ({ agentVersion: 'fake', bootId: 'fake', uptimeMs: this.#uptimeMs() }),
          personalize: (request) => {
            this.#env = { ...request.env };
            return {};
          },
          warm: () => ({}),
          sync: () => ({}),
          stats: () => ({
            agentRssBytes: BigInt(process.memoryUsage().rss),
            memoryTotalBytes: BigInt(Math.min(size.memoryMib * 1024 * 1024, totalmem())),
            memoryAvailableBytes: BigInt(Math.min(size.memoryMib * 1024 * 1024, freemem())),
            diskTotalBytes: 4n << 30n,
            diskFreeBytes: 4n << 30n,
            processes: this.#exec.running(),
            uptimeMs: this.#uptimeMs(),
            cpuTimeMs: BigInt(Math.round(process.cpuUsage().user / 1000)),
          }),
          powerOff: () => {
            setImmediate(powerOff);
            return {};
          },
        });
        router.service(Exec, this.#exec.handlers);
        router.service(Files, filesService(root));
        router.service(Pty, this.#ptys.handlers);
      },
    });
    this.#server = createServer(handler);
    const tunnels = new FakeTunnels();
    this.#server.on('connect', ({ stream, authority }) => tunnels.accept(stream, authority));
    this.#server.on('session', (session) => {
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
    });
    // Streams end with their host; what was running on them has been told.
    this.#server.on('sessionError', () => {});
  }

  /** Waits for SYNC on a new stream, whatever stands before it. A host that comes again replaces the one before. */
  accept(stream: Duplex): void {
    for (const session of this.#sessions) session.destroy();
    answerSync(stream, () => this.#server.emit('connection', stream));
  }

  async close(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    await Promise.all([this.#exec.close(), this.#ptys.close()]);
  }

  #uptimeMs(): bigint {
    return BigInt(Date.now() - this.#startedAt);
  }
}

/** The guest's part of the SYNC/ACKN exchange. @param answered may use the stream from then on */
export function answerSync(stream: Duplex, answered: () => void): void {
  let kept: Buffer = Buffer.alloc(0);
  const onData = (piece: Buffer): void => {
    kept = Buffer.concat([kept, piece]);
    const at = kept.indexOf(SYNC);
    const end = at + SYNC.length + NONCE_BYTES;
    if (at < 0 || kept.length < end) return;
    stream.off('data', onData);
    stream.pause();
    const nonce = kept.subarray(at + SYNC.length, end);
    if (kept.length > end) stream.unshift(kept.subarray(end));
    stream.write(Buffer.concat([ACKN, nonce]));
    answered();
  };
  stream.on('data', onData);
  stream.on('error', () => stream.destroy());
}
