/** The fake guest's tunnels: connections to the host's own loopback interface, for that is where its programs listen. */
import type { ServerHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';

const AUTHORITY = /^localhost:([1-9]\d{0,4})$/;
const ADDRESSES = ['127.0.0.1', '::1'];
const MAX_TUNNELS = 1024;

export class FakeTunnels {
  #open = 0;

  accept(stream: ServerHttp2Stream, authority: string | undefined): void {
    stream.on('error', () => {});
    const port = Number(AUTHORITY.exec(authority ?? '')?.[1]);
    if (!(port <= 65_535)) refuse(stream, 400, 'invalid_request');
    else if (this.#open >= MAX_TUNNELS) refuse(stream, 429, 'too_many_tunnels');
    else {
      this.#open += 1;
      stream.once('close', () => {
        this.#open -= 1;
      });
      reach(stream, port, ADDRESSES);
    }
  }
}

function reach(stream: ServerHttp2Stream, port: number, [host, ...others]: readonly string[]): void {
  if (host === undefined) {
    refuse(stream, 502, 'connection_refused');
    return;
  }
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  const giveUp = (): void => {
    socket.destroy();
  };
  const next = (): void => {
    stream.off('close', giveUp);
    reach(stream, port, others);
  };
  stream.once('close', giveUp);
  socket.once('error', next);
  socket.once('connect', () => {
    stream.off('close', giveUp);
    socket.off('error', next);
    relay(socket, stream);
  });
}

function relay(socket: Socket, stream: ServerHttp2Stream): void {
  stream.respond({ ':status': 200 });
  // Not close(), which would end the stream before it resets it.
  socket.on('error', (error) => stream.destroy(error));
  stream.once('close', () => {
    if (stream.aborted) socket.resetAndDestroy();
    else socket.destroySoon();
  });
  socket.pipe(stream);
  stream.pipe(socket);
}

function refuse(stream: ServerHttp2Stream, status: number, reason: string): void {
  if (stream.destroyed) return;
  stream.respond({ ':status': status, 'instavm-reason': reason }, { endStream: true });
}
