/** The fake guest's end of the egress channel: it takes part in the exchange and asks for nothing, for its commands use the host's own network. */
import { connect } from 'node:http2';
import type { Duplex } from 'node:stream';
import { answerSync } from './guest.ts';

export function acceptEgress(stream: Duplex): void {
  answerSync(stream, () => {
    const session = connect('http://gateway', { createConnection: () => stream });
    // A host that goes is an ordinary end.
    session.on('error', () => {});
  });
}
