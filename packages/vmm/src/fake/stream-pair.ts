/** Two ends of a byte stream in memory. */
import { Duplex } from 'node:stream';

/**
 * Unlike `stream.duplexPair`, a write never waits for the reader: Node's HTTP/2 does not read while it writes, so two of its sessions on
 * a pipe that holds nothing would wait for each other for ever. What is under way is bounded by HTTP/2's windows.
 */
export function streamPair(): [Duplex, Duplex] {
  const [a, b] = [new End(), new End()];
  a.peer = b;
  b.peer = a;
  return [a, b];
}

class End extends Duplex {
  peer: End | undefined;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.peer?.destroyed === false) this.peer.push(chunk);
    done();
  }

  override _final(done: () => void): void {
    if (this.peer?.destroyed === false) this.peer.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { peer } = this;
    // The other end sees the hang-up after what was written before it.
    if (peer?.destroyed === false && !peer.readableEnded) setImmediate(() => peer.push(null));
    done(error);
  }
}
